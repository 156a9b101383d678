"""The steps of preparing a dataset: choosing cases and folders, planning, preprocessing with nnU-Net's classes.

``runs/preparation_tasks.py`` runs them as Ray tasks. nnU-Net is imported only where it is used: that takes seconds, and
the process that starts the tasks does not need it.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.config.experiment import Experiment
from uncseg.dataset.brats import MODALITIES, BratsCase, oracle_path
from uncseg.dataset.case_volumes import read_case
from uncseg.dataset.fingerprint import fingerprint_file
from uncseg.dataset.finite import naming, require_finite_channels
from uncseg.dataset.labels import LABELS, REGIONS
from uncseg.dataset.patients import find_patients
from uncseg.dataset.scan import scan_folder
from uncseg.dataset.splits import given_splits, problems_of_given
from uncseg.dataset.volumes import read_volume
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.files import digest, file_states, json_text, read_json, whole_file, write_json, write_text
from uncseg.layout import PreparedFolder

REGIONS_CLASS_ORDER = (2, 1, 3)  # drawn one over the other: WT as ED, TC as NCR, ET


def nnunet_environment(prepared: PreparedFolder, results: Path | None = None) -> dict[str, str]:
    """Return the variables that tell nnU-Net its folders; ``results``, for models, is by default beside the dataset."""
    return {
        "nnUNet_raw": str(prepared.raw),
        "nnUNet_preprocessed": str(prepared.preprocessed),
        "nnUNet_results": str(results or prepared.root / "nnUNet_results"),
    }


def chosen_cases(experiment: Experiment) -> tuple[list[BratsCase], list[Problem]]:
    """Return the complete cases that the experiment does not exclude, and the layout problems of the incomplete ones.

    Raises:
        ProblemsFound: there is no dataset, an excluded case does not exist, another number of cases is expected, a
            case's patient is unknown, there are fewer patients than folds, or a split of one's own does not fit.
    """
    dataset = experiment.dataset
    excluded, problems = _excluded(dataset.exclude)
    scan = scan_folder(dataset.path, convention=dataset.convention, exclude=excluded)
    cases, layout = scan.cases, scan.problems
    problems += [
        Problem("dataset.exclude", name, "the name of a case, a folder or an image file", "correct or remove it")
        for name in sorted(excluded - scan.excluded)
    ]
    number = len(cases) + len(scan.incomplete)
    if dataset.expected_cases is not None and number != dataset.expected_cases:
        found = f"{number} cases in {dataset.path} after exclusion"
        advice = "list the cases to leave out in dataset.exclude, or correct dataset.expected_cases"
        problems.append(Problem("dataset.expected_cases", found, f"{dataset.expected_cases}", advice))
    patients, unknown = find_patients([case.case_id for case in cases], dataset.patients)
    problems += unknown
    if not unknown:
        cases = [replace(case, patient=patients.of[case.case_id]) for case in cases]
        problems += _problems_of_split(experiment, patients.of, excluded, set(scan.incomplete))
    raise_if_any(problems and problems + layout, "The cases cannot be used as the experiment says.")
    return cases, layout


def _problems_of_split(
    experiment: Experiment, patients: Mapping[str, str], excluded: set[str], incomplete: set[str]
) -> list[Problem]:
    split = experiment.split
    if split.given is not None:
        return problems_of_given(split, patients, excluded, incomplete)
    number = len(set(patients.values()))
    if number >= split.folds or incomplete:
        return []
    found, advice = f"{split.folds} folds for {number} patients", f"set split.folds to {max(2, number)} or less"
    return [Problem("split.folds", found, "at most as many folds as patients", f"{advice}, or add patients")]


def _excluded(exclude: tuple[str, ...] | Path) -> tuple[set[str], list[Problem]]:
    if not isinstance(exclude, Path):
        return set(exclude), []
    try:
        lines = exclude.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        found, advice = f"{exclude}: {error.strerror}", "correct the path, or give the ids as a list"
        return set(), [Problem("dataset.exclude", found, "a file with one id per line", advice)]
    return {line.split("#")[0].strip() for line in lines} - {""}, []


def _file_states(experiment: Experiment, cases: Sequence[BratsCase]) -> dict[str, Any]:
    """Return size and time of every file by name: while they stay the same, no file needs to be read again."""
    root = experiment.dataset.path.resolve()
    files = [file for case in cases for file in (*case.files, oracle_path(case)) if file is not None]
    states = {str(Path(name).relative_to(root)): state for name, *state in file_states(files)}
    return {"folder": str(root), "convention": [case.convention for case in cases[:1]], **states}


def survey_folder(experiment: Experiment, cases: Sequence[BratsCase]) -> Path:
    """Return the folder of the cases' checks and fingerprint; plans that draw as many samples share it."""
    content = [_file_states(experiment, cases), experiment.plan.foreground_samples]
    return experiment.storage.path.resolve() / "prepared" / f"{experiment.dataset.name}-survey-{digest(content)[:10]}"


def preparation_digest(experiment: Experiment, cases: Sequence[BratsCase]) -> str:
    """Return a digest of what a preparation depends on: files, plan, output, patients, split, and nnU-Net's names.

    Lists count by what they say of these cases, not by the names of their files.
    """
    content = {
        "files": _file_states(experiment, cases),
        "plan": experiment.plan.model_dump(mode="json"),
        "output": experiment.model.output,
        "split": _split_content(experiment, cases),
        "patients": {case.case_id: case.patient for case in cases},
        "dataset": [experiment.dataset.id, experiment.dataset.name],
    }
    return digest(content)


def _split_content(experiment: Experiment, cases: Sequence[BratsCase]) -> Any:
    split = experiment.split
    if split.given is None:
        return [split.folds, split.seed]
    return given_splits(split.given, [case.case_id for case in cases]), split.given.groups


def prepared_folder(experiment: Experiment, preparation: str) -> PreparedFolder:
    """Return the folder of a preparation."""
    dataset = experiment.dataset
    root = experiment.storage.path.resolve() / "prepared" / f"{dataset.name}-{preparation[:10]}"
    return PreparedFolder(root, f"Dataset{dataset.id:03d}_{dataset.name}")


def _raw_images(prepared: PreparedFolder, case_id: str) -> list[str]:
    names = (f"{case_id}_{channel:04d}.nii.gz" for channel in range(len(MODALITIES)))
    return [str(prepared.raw_dataset / "imagesTr" / name) for name in names]


def _raw_reference(prepared: PreparedFolder, case_id: str) -> Path:
    return prepared.raw_dataset / "labelsTr" / f"{case_id}.nii.gz"


def dataset_description(output: str, cases: int) -> dict[str, Any]:
    """Return nnU-Net's dataset.json for an output. The order of labels and channels has a meaning."""
    content: dict[str, Any] = {
        "channel_names": {str(i): name.capitalize() for i, name in enumerate(MODALITIES)},
        "labels": {"background": 0, **LABELS},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    if output == "regions":
        content["labels"] = {"background": 0, **{name: list(labels) for name, labels in REGIONS.items()}}
        content["regions_class_order"] = list(REGIONS_CLASS_ORDER)
    return content


def write_raw_description(prepared: PreparedFolder, output: str, case_ids: Sequence[str]) -> None:
    """Write the raw folder's dataset.json with a list of its files, for which nnU-Net would start twelve processes."""
    folder = prepared.raw_dataset
    listed = {
        case: {
            "images": [os.path.relpath(file, folder) for file in _raw_images(prepared, case)],
            "label": os.path.relpath(_raw_reference(prepared, case), folder),
        }
        for case in case_ids
    }
    content = dataset_description(output, len(case_ids)) | {"dataset": listed}
    write_text(folder / "dataset.json", json_text(content, indent=2))


def plan(prepared: PreparedFolder, experiment: Experiment, survey_folder: Path, cases: int) -> None:
    """Write the plans from a survey's fingerprint, unless they exist.

    Raises:
        ProblemsFound: ``plan.patch_size`` does not fit.
    """
    if prepared.plans.is_file():
        return
    write_json(fingerprint_file(prepared.dataset), read_json(fingerprint_file(survey_folder)))
    from uncseg.dataset.planner import plan_dataset

    plan_dataset(prepared.dataset_name, experiment.plan, nnunet_environment(prepared))
    # nnU-Net copied the raw folder's file; this one goes into models, which need no list of files
    content = dataset_description(experiment.model.output, cases)
    write_text(prepared.dataset / "dataset.json", json_text(content, indent=2))


def preprocess_case(prepared: PreparedFolder, case: BratsCase, configuration: str) -> list[Problem]:
    """Read a case once; put it into the raw folder; crop, normalise and resample it with nnU-Net's preprocessor.

    Its files are complete or absent; a case that has them is skipped.

    Returns:
        A problem for each channel whose values are not finite then; such a case gets no files.
    """
    try:
        with naming(case.case_id):
            _preprocess(prepared, case, configuration)
    except ProblemsFound as error:
        return error.problems
    return []


def _preprocess(prepared: PreparedFolder, case: BratsCase, configuration: str) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from uncseg.dataset.nnunet_case import LoadedCasePlans, write_raw_case

    content = read_json(prepared.plans)
    plans = PlansManager(content)
    settings = plans.get_configuration(configuration)
    folder = prepared.dataset / settings.data_identifier
    files = [f"{case.case_id}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
    if not all((folder / file).is_file() for file in files):
        volumes = read_case(case)
        write_raw_case(volumes, prepared.raw_dataset / "imagesTr", prepared.raw_dataset / "labelsTr")
        folder.mkdir(parents=True, exist_ok=True)
        # in a folder of its own: nnU-Net takes every .b2nd file in the dataset's folder for a case
        with tempfile.TemporaryDirectory(prefix=".part-", dir=prepared.root) as partial:
            images, reference = _raw_images(prepared, case.case_id), str(_raw_reference(prepared, case.case_id))
            described = LoadedCasePlans(content, volumes), settings, read_json(prepared.dataset / "dataset.json")
            with contextlib.redirect_stdout(None), np.errstate(over="ignore", invalid="ignore"):
                preprocessor = _checked(settings.preprocessor_class(verbose=False))
                preprocessor.run_case_save(str(Path(partial) / case.case_id), images, reference, *described)
            for file in files:
                (Path(partial) / file).replace(folder / file)
    _write_oracle(prepared, case, plans, settings)


def _checked(preprocessor: Any) -> Any:
    """Let nnU-Net's preprocessor refuse a case whose values are not finite, before it saves it."""
    run_case = preprocessor.run_case

    def run_case_and_check(*arguments: Any) -> Any:
        data, reference, properties = run_case(*arguments)
        require_finite_channels(data, MODALITIES)
        return data, reference, properties

    preprocessor.run_case = run_case_and_check
    return preprocessor


def _write_oracle(prepared: PreparedFolder, case: BratsCase, plans: Any, settings: Any) -> None:
    """Write a phantom's q on the preprocessed grid: transposed, cropped and, if necessary, resampled linearly."""
    q_file, target = oracle_path(case), prepared.oracle / f"{case.case_id}.npy"
    if q_file is None or target.is_file():
        return
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder = str(prepared.dataset / settings.data_identifier)
    data, _, _, properties = nnUNetDatasetBlosc2(folder, [case.case_id]).load_case(case.case_id)
    q = read_volume(q_file).voxels.transpose(plans.transpose_forward)
    box = tuple(slice(lower, upper) for lower, upper in properties["bbox_used_for_cropping"])
    resampled = q[box][None].astype(np.float32)
    if resampled.shape[1:] != data.shape[1:]:
        spacing = [properties["spacing"][i] for i in plans.transpose_forward]
        # a 2D configuration does not change the spacing between slices
        target_spacing = settings.spacing if len(settings.spacing) == 3 else [spacing[0], *settings.spacing]
        resampled = np.asarray(settings.resampling_fn_probabilities(resampled, data.shape[1:], spacing, target_spacing))
    with whole_file(target) as temporary:
        np.save(temporary, resampled[0].astype(np.float16))


def link_references(prepared: PreparedFolder, case_ids: Sequence[str]) -> None:
    """Link the raw folder's references into gt_segmentations, where nnU-Net's own validation looks for them."""
    folder = prepared.dataset / "gt_segmentations"
    folder.mkdir(exist_ok=True)
    for reference in (_raw_reference(prepared, case) for case in case_ids):
        link = folder / reference.name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(reference)


def record_done(
    prepared: PreparedFolder,
    digests: Mapping[str, str],
    cases: Sequence[BratsCase],
    surveys: Mapping[str, Any],
    groups: Sequence[str] | None,
    versions: Mapping[str, str],
) -> None:
    """Write prepared.json, which says that the folder is complete.

    Args:
        digests: of ``split`` and ``preparation``.
        groups: the group that each fold leaves out; None: the folds are not made of groups.
    """
    dataset = digest({case: survey["digest"] for case, survey in surveys.items()})
    content = {
        "digests": {"dataset": dataset, **digests},
        "cases": len(surveys),
        "patients": len({case.patient for case in cases}),
        "groups": None if groups is None else {f"fold_{fold}": group for fold, group in enumerate(groups)},
        "volumes_ml": {case: survey["volume_ml"] for case, survey in surveys.items()},
        "versions": dict(versions),
    }
    write_json(prepared.done, content)
