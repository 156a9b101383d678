"""Preparing a dataset, as plain functions a case: fingerprint, preprocessing, the oracle; nnU-Net's classes work.

The cluster spreads these over tasks (``cluster/prepare.py``).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from uncseg.config import Experiment
from uncseg.dataset.brats import BratsCase, find_cases, link_or_map, oracle_path, read_reference
from uncseg.dataset.check import check_case
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, read_json, whole_file, write_json, write_text
from uncseg.layout import PreparedFolder

CHANNELS = ("T1n", "T1c", "T2w", "T2f")
PLANS_NAME = "nnUNetPlans"
FOREGROUND_SAMPLES = 10e7  # nnU-Net's number for a whole dataset


def nnunet_environment(prepared: PreparedFolder, results: Path | None = None) -> dict[str, str]:
    """The environment variables that nnU-Net reads its folders from."""
    return {
        "nnUNet_raw": str(prepared.raw),
        "nnUNet_preprocessed": str(prepared.preprocessed),
        "nnUNet_results": str(results or prepared.root / "nnUNet_results"),
    }


def chosen_cases(experiment: Experiment) -> list[BratsCase]:
    """Cases of the experiment, after exclusion.

    Raises:
        ProblemsFound: layout problems, unknown exclusions, another number than expected, fewer patients than folds.
    """
    dataset = experiment.dataset
    cases = find_cases(dataset.path)
    excluded, problems = _excluded(dataset.exclude)
    known = {case.case_id for case in cases}
    problems += [
        Problem("dataset.exclude", name, "the id of a case in the folder", "correct or remove it")
        for name in sorted(excluded - known)
    ]
    cases = [case for case in cases if case.case_id not in excluded]
    if dataset.expected_cases is not None and len(cases) != dataset.expected_cases:
        found = f"{len(cases)} cases in {dataset.path} after exclusion"
        advice = "list the cases to leave out in dataset.exclude, or correct dataset.expected_cases"
        problems.append(Problem("dataset.expected_cases", found, f"{dataset.expected_cases}", advice))
    patients = {case.patient for case in cases}
    if len(patients) < experiment.split.folds:
        found = f"{experiment.split.folds} folds for {len(patients)} patients"
        advice = f"write split.folds: {max(2, len(patients))} or less, or add patients"
        problems.append(Problem("split.folds", found, "at most as many folds as patients", advice))
    if problems:
        raise ProblemsFound("The cases cannot be used as the experiment says.", problems)
    return cases


def _excluded(exclude: tuple[str, ...] | Path) -> tuple[set[str], list[Problem]]:
    if not isinstance(exclude, Path):
        return set(exclude), []
    try:
        lines = exclude.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        advice = "correct the path, or write the ids as a list"
        return set(), [Problem("dataset.exclude", f"{exclude}: {error.strerror}", "a file, one id a line", advice)]
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}, []


def preparation_digest(experiment: Experiment, cases: Sequence[BratsCase]) -> str:
    """What the prepared folder depends on: the files (by name, size and time), plan, head and split."""
    files = [file for case in cases for file in (*case.images, case.reference) if file is not None]
    stats = {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
    sections = {
        "plan": experiment.plan.model_dump(mode="json"),
        "head": experiment.model.head,
        "split": experiment.split.model_dump(mode="json"),
        "dataset": [experiment.dataset.id, experiment.dataset.name],
    }
    return digest({"files": stats, **sections})


def prepared_folder(experiment: Experiment, preparation: str) -> PreparedFolder:
    """Where a preparation lies."""
    name = experiment.dataset.name
    root = experiment.storage.path.resolve() / "prepared" / f"{name}-{preparation[:10]}"
    return PreparedFolder(root, f"Dataset{experiment.dataset.id:03d}_{name}")


def write_dataset_json(prepared: PreparedFolder, head: str, cases: int) -> None:
    """nnU-Net's description of the raw dataset; the head decides the labels."""
    content: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(CHANNELS)},
        "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    if head == "regions":
        content["labels"] = {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
        # painted in this order: WT as ED, TC as NCR over it, ET as 3 over that
        content["regions_class_order"] = [2, 1, 3]
    # nnU-Net takes channels and regions in the file's order
    write_text(prepared.raw_dataset / "dataset.json", json.dumps(content, indent=2))


def survey_case(prepared: PreparedFolder, case: BratsCase, number_of_cases: int) -> dict[str, Any]:
    """Check a case, link it into the raw folder, take its part of the fingerprint.

    Returns:
        problems (a list; nothing is written where it is not empty), else volume_ml, digest and patient; the
        fingerprint's part goes to ``fingerprint/CASE.npz``.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    record = prepared.root / "fingerprint" / f"{case.case_id}.json"
    if record.is_file():
        content = read_json(record)
        assert isinstance(content, dict)
        return content
    problems = check_case(case)
    if problems:
        return {"problems": problems}
    images, labels = prepared.raw_dataset / "imagesTr", prepared.raw_dataset / "labelsTr"
    link_or_map(case, images, labels)
    shape, spacing, intensities, _, relative_size = DatasetFingerprintExtractor.analyze_case(
        [str(images / f"{case.case_id}_{channel:04d}.nii.gz") for channel in range(len(CHANNELS))],
        str(labels / f"{case.case_id}.nii.gz"),
        SimpleITKIO,
        int(FOREGROUND_SAMPLES // number_of_cases),
    )
    with whole_file(record.with_suffix(".npz")) as temporary:
        np.savez(temporary, shape=shape, spacing=spacing, intensities=intensities, relative_size=relative_size)
    reference, image = read_reference(case)
    content = {
        "problems": [],
        "patient": case.patient,
        "volume_ml": float((reference > 0).sum() * np.prod(image.GetSpacing())) / 1000,
        "digest": _file_digest(case),
    }
    write_json(record, content)
    return content


def _file_digest(case: BratsCase) -> str:
    whole = hashlib.sha256()
    for file in (*case.images, case.reference):
        if file is not None:
            whole.update(file.read_bytes())
    return whole.hexdigest()


def write_fingerprint(prepared: PreparedFolder, case_ids: Sequence[str]) -> None:
    """Join the cases' parts into nnU-Net's dataset_fingerprint.json.

    nnU-Net's own run() joins them too, but only behind a pool of processes of its own; this is the same arithmetic,
    held against nnU-Net's file by a test.
    """
    parts = [np.load(prepared.root / "fingerprint" / f"{case}.npz") for case in case_ids]
    per_channel = np.concatenate([part["intensities"] for part in parts if part["intensities"].size], axis=1)
    statistics = {}
    for channel, values in enumerate(per_channel):
        low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
        statistics[channel] = {
            "mean": float(np.mean(values)),
            "median": float(median),
            "std": float(np.std(values)),
            "min": float(np.min(values)),
            "max": float(np.max(values)),
            "percentile_99_5": float(high),
            "percentile_00_5": float(low),
        }
    write_json(
        prepared.dataset / "dataset_fingerprint.json",
        {
            "spacings": [part["spacing"].tolist() for part in parts],
            "shapes_after_crop": [part["shape"].tolist() for part in parts],
            "foreground_intensity_properties_per_channel": statistics,
            "median_relative_size_after_cropping": float(np.median([part["relative_size"] for part in parts])),
        },
    )


def preprocess_case(prepared: PreparedFolder, case: BratsCase, configuration: str) -> None:
    """Crop, normalise and resample one case with nnU-Net's preprocessor; whole or absent, skipped where it is there."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(read_json(prepared.plans))
    settings = plans.get_configuration(configuration)
    folder = prepared.dataset / settings.data_identifier
    # the properties are renamed last: with them there, the case is whole
    files = [f"{case.case_id}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
    if not (folder / files[-1]).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = f".part-{os.getpid()}-"
        images = prepared.raw_dataset / "imagesTr"
        with contextlib.redirect_stdout(None):
            settings.preprocessor_class(verbose=False).run_case_save(
                str(folder / f"{part}{case.case_id}"),
                [str(images / f"{case.case_id}_{channel:04d}.nii.gz") for channel in range(len(CHANNELS))],
                str(prepared.raw_dataset / "labelsTr" / f"{case.case_id}.nii.gz"),
                plans,
                settings,
                read_json(prepared.dataset / "dataset.json"),
            )
        for file in files:
            (folder / f"{part}{file}").replace(folder / file)
    _write_oracle(prepared, case, plans, settings)


def _write_oracle(prepared: PreparedFolder, case: BratsCase, plans: Any, settings: Any) -> None:
    q_file, target = oracle_path(case), prepared.oracle / f"{case.case_id}.npy"
    if q_file is None or target.is_file():
        return
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder = str(prepared.dataset / settings.data_identifier)
    data, _, _, properties = nnUNetDatasetBlosc2(folder, [case.case_id]).load_case(case.case_id)
    q = sitk.GetArrayFromImage(sitk.ReadImage(str(q_file))).transpose(plans.transpose_forward)
    box = tuple(slice(lower, upper) for lower, upper in properties["bbox_used_for_cropping"])
    cropped = q[box][None].astype(np.float32)
    if cropped.shape[1:] != data.shape[1:]:
        spacing = [properties["spacing"][i] for i in plans.transpose_forward]
        wanted = settings.spacing if len(settings.spacing) == 3 else [spacing[0], *settings.spacing]
        cropped = np.asarray(settings.resampling_fn_probabilities(cropped, data.shape[1:], spacing, wanted))
    with whole_file(target) as temporary:
        np.save(temporary, cropped[0].astype(np.float16))


def link_references(prepared: PreparedFolder, case_ids: Sequence[str]) -> None:
    """nnU-Net's own validation looks for references in gt_segmentations; links to those of the raw folder."""
    folder = prepared.dataset / "gt_segmentations"
    folder.mkdir(exist_ok=True)
    for case in case_ids:
        link = folder / f"{case}.nii.gz"
        if not link.exists():
            link.symlink_to(prepared.raw_dataset / "labelsTr" / f"{case}.nii.gz")


def record_done(
    prepared: PreparedFolder, preparation: str, split: str, surveys: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write prepared.json: from now on the folder is whole."""
    content = {
        "digests": {
            "dataset": digest({case: survey["digest"] for case, survey in surveys.items()}),
            "split": split,
            "preparation": preparation,
        },
        "cases": len(surveys),
        "patients": len({survey["patient"] for survey in surveys.values()}),
        "volumes_ml": {case: survey["volume_ml"] for case, survey in surveys.items()},
    }
    write_json(prepared.done, content)
