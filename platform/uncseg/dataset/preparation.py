"""The steps of preparing a dataset: choosing cases and folders, planning, describing what is there for nnU-Net.

``runs/preparation_tasks.py`` runs them as Ray tasks. nnU-Net is imported only where it is used: that takes seconds, and
the process that starts the tasks does not need it.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uncseg.config.experiment import Experiment
from uncseg.config.list_files import read_text_file
from uncseg.dataset.cases import Case, oracle_path
from uncseg.dataset.fingerprint import fingerprint_file, kept_fingerprint
from uncseg.dataset.patients import find_patients
from uncseg.dataset.scan import Scan, scan_folder
from uncseg.dataset.splits import given_splits, problems_of_drawn_cases, problems_of_given
from uncseg.errors import DamagedFile, Problem, raise_if_any
from uncseg.files import digest, file_states, is_as_described, json_text, read_json, write_json, write_text
from uncseg.kept_records import keep_record, kept_record
from uncseg.layout import PreparedFolder
from uncseg.tasks.outputs import drawn_labels
from uncseg.tasks.task import Task

REMAKE = "delete the prepared folder: the same command prepares it again, and runs on it go on if nothing else changed"
DONE_KEYS = ("files", "digests", "cases", "convention", "patients", "groups", "volumes_ml", "versions")


def nnunet_environment(prepared: PreparedFolder, results: Path | None = None) -> dict[str, str]:
    """Return the variables that tell nnU-Net its folders; ``results``, for models, is by default beside the dataset."""
    return {
        "nnUNet_raw": str(prepared.raw),
        "nnUNet_preprocessed": str(prepared.preprocessed),
        "nnUNet_results": str(results or prepared.root / "nnUNet_results"),
    }


def chosen_cases(experiment: Experiment) -> tuple[list[Case], list[Problem]]:
    """Return the complete cases that the experiment does not exclude, and the layout problems of the incomplete ones.

    Raises:
        ProblemsFound: there is no dataset, an excluded case does not exist, another number of cases is expected, a
            case's patient is unknown, there are fewer patients than folds, or a split of one's own does not fit.
    """
    dataset = experiment.dataset
    excluded, problems = _excluded(dataset.exclude)
    scan = _scan(experiment, excluded)
    cases, layout = scan.cases, scan.problems
    problems += [
        Problem("dataset.exclude", name, "the name of a case, a folder or an image file", "correct or remove it")
        for name in sorted(excluded - scan.excluded)
    ]
    number = len(cases) + len(scan.partial)
    if dataset.expected_cases is not None and number != dataset.expected_cases:
        found = f"{number} cases in {dataset.path} after exclusion"
        advice = "list the cases to leave out in dataset.exclude, or correct dataset.expected_cases"
        problems.append(Problem("dataset.expected_cases", found, f"{dataset.expected_cases}", advice))
    patients, unknown = find_patients([case.case_id for case in cases], dataset.patients, task=dataset.task)
    problems += unknown
    if not unknown:
        cases = [replace(case, patient=patients.of[case.case_id]) for case in cases]
        problems += _problems_of_split(experiment, patients.of, excluded, {case.case_id for case in scan.partial})
    raise_if_any(problems and problems + layout, "The cases cannot be used as the experiment says.")
    return cases, layout


def cases_of(experiment: Experiment) -> Scan:
    """Return the cases that there are, complete or not, each with its patient where that is known.

    Raises:
        ProblemsFound: there is no dataset.
    """
    scan = _scan(experiment, _excluded(experiment.dataset.exclude)[0])
    dataset = experiment.dataset
    patients, _ = find_patients([case.case_id for case in scan.cases], dataset.patients, task=dataset.task)
    cases = [replace(case, patient=patients.of.get(case.case_id, case.patient)) for case in scan.cases]
    return replace(scan, cases=cases)


def _scan(experiment: Experiment, excluded: set[str]) -> Scan:
    dataset = experiment.dataset
    return scan_folder(dataset.path, convention=dataset.convention, exclude=excluded, task=dataset.task)


def _problems_of_split(
    experiment: Experiment, patients: Mapping[str, str], excluded: set[str], incomplete: set[str]
) -> list[Problem]:
    split = experiment.split
    if split.given is not None:
        return problems_of_given(split, patients, excluded, incomplete)
    units = set(patients.values() if split.drawn == "patients" else patients)
    if len(units) >= split.folds:
        return problems_of_drawn_cases(split, patients) if split.drawn == "cases" else []
    if incomplete:
        return []
    what = split.drawn.removesuffix("s") if len(units) == 1 else split.drawn
    advice = f"set split.folds to {len(units)} or less, or add {split.drawn}"
    advice = advice if len(units) >= 2 else f"add {split.drawn}: 2 or more"
    found, expected = f"{split.folds} folds for {len(units)} {what}", f"at most as many folds as {split.drawn}"
    return [Problem("split.folds", found, expected, advice)]


def _excluded(exclude: tuple[str, ...] | Path) -> tuple[set[str], list[Problem]]:
    if not isinstance(exclude, Path):
        return set(exclude), []
    text, problems = read_text_file(exclude, f"dataset.exclude: {exclude}", "a file with one name per line")
    problems = [replace(problem, advice=f"{problem.advice}, or give the names as a list") for problem in problems]
    # a name may hold #, a comment begins the line or follows a space
    return {re.split(r"(?:^|\s)#", line)[0].strip() for line in (text or "").splitlines()} - {""}, problems


def _file_states(experiment: Experiment, cases: Sequence[Case]) -> dict[str, Any]:
    """Return size and time of every file by name, and which images each case has in the order of the modalities.

    While they stay the same, no file needs to be read again.
    """
    root = experiment.dataset.path.resolve()
    files = [file for case in cases for file in (*case.files, oracle_path(case)) if file is not None]
    # files that an nnU-Net dataset lists may lie elsewhere
    states = {os.path.relpath(name, root): state for name, *state in file_states(files)}
    images = {case.case_id: [os.path.relpath(file, root) for file in case.images] for case in cases}
    task, conventions = experiment.dataset.task, {case.convention for case in cases}
    values = {name: task.values(name) for name in sorted(conventions)}
    labels = {"values": values, "labels": task.labels, "main": task.numbers[task.main_region]}
    return {"folder": str(root), "modalities": task.modalities, "images": images, **labels, "files": states}


def survey_folder(experiment: Experiment, cases: Sequence[Case]) -> Path:
    """Return the folder of the cases' checks and fingerprint; plans that draw as many samples share it."""
    content = [_file_states(experiment, cases), experiment.plan.foreground_samples]
    return experiment.storage.path.resolve() / "prepared" / f"{experiment.dataset.name}-survey-{digest(content)[:10]}"


def preparation_digest(experiment: Experiment, cases: Sequence[Case]) -> str:
    """Return a digest of what a preparation depends on: files, plan, output, patients, split, and nnU-Net's names.

    Lists count by what they say of these cases, not by the names of their files.
    """
    content = {
        "files": _file_states(experiment, cases),
        "plan": experiment.plan.model_dump(mode="json"),
        "output": experiment.model.output,
        "regions": list(experiment.dataset.task.numbers.items()),  # in the order of the channels
        "split": _split_content(experiment, cases),
        "patients": {case.case_id: case.patient for case in cases},
        "dataset": [experiment.dataset.id, experiment.dataset.name],
    }
    return digest(content)


def _split_content(experiment: Experiment, cases: Sequence[Case]) -> Any:
    split = experiment.split
    if split.given is None:
        return [split.folds, split.seed, *[split.drawn] * (split.drawn == "cases")]  # as before there was this field
    return given_splits(split.given, [case.case_id for case in cases]), split.given.groups


def prepared_folder(experiment: Experiment, preparation: str) -> PreparedFolder:
    """Return the folder of a preparation."""
    dataset = experiment.dataset
    root = experiment.storage.path.resolve() / "prepared" / f"{dataset.name}-{preparation[:10]}"
    return PreparedFolder(root, f"Dataset{dataset.id:03d}_{dataset.name}")


def raw_images(prepared: PreparedFolder, case_id: str, task: Task) -> list[str]:
    """Return a case's images in nnU-Net's raw folder."""
    names = (f"{case_id}_{channel:04d}.nii.gz" for channel in range(len(task.modalities)))
    return [str(prepared.raw_dataset / "imagesTr" / name) for name in names]


def raw_reference(prepared: PreparedFolder, case_id: str) -> Path:
    """Return a case's reference in nnU-Net's raw folder."""
    return prepared.raw_dataset / "labelsTr" / f"{case_id}.nii.gz"


def dataset_description(output: str, cases: int, task: Task) -> dict[str, Any]:
    """Return nnU-Net's dataset.json of a task for an output. The order of labels and channels has a meaning."""
    content: dict[str, Any] = {
        "channel_names": {str(i): name[:1].upper() + name[1:] for i, name in enumerate(task.modalities)},
        "labels": {"background": 0, **task.labels},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    if output == "regions":
        content["labels"] = {"background": 0, **{name: list(labels) for name, labels in task.numbers.items()}}
        content["regions_class_order"] = list(drawn_labels(task))
    return content


def write_raw_description(prepared: PreparedFolder, output: str, case_ids: Sequence[str], task: Task) -> None:
    """Write the raw folder's dataset.json with a list of its files, for which nnU-Net would start twelve processes."""
    folder = prepared.raw_dataset
    listed = {
        case: {
            "images": [os.path.relpath(file, folder) for file in raw_images(prepared, case, task)],
            "label": os.path.relpath(raw_reference(prepared, case), folder),
        }
        for case in case_ids
    }
    content = dataset_description(output, len(case_ids), task) | {"dataset": listed}
    write_text(folder / "dataset.json", json_text(content, indent=2))


def plan(prepared: PreparedFolder, experiment: Experiment, survey_folder: Path, cases: int) -> None:
    """Write the plans from a survey's fingerprint.

    Raises:
        ProblemsFound: ``plan.patch_size`` does not fit.
    """
    write_json(fingerprint_file(prepared.dataset), kept_fingerprint(survey_folder))
    from uncseg.dataset.planner import plan_dataset

    plan_dataset(prepared.dataset_name, experiment.plan, nnunet_environment(prepared))
    # nnU-Net copied the raw folder's file; this one goes into models, which need no list of files
    content = dataset_description(experiment.model.output, cases, experiment.dataset.task)
    write_text(prepared.dataset / "dataset.json", json_text(content, indent=2))


def link_references(prepared: PreparedFolder, case_ids: Sequence[str]) -> None:
    """Link the raw folder's references into gt_segmentations, where nnU-Net's own validation looks for them."""
    folder = prepared.dataset / "gt_segmentations"
    folder.mkdir(exist_ok=True)
    for reference in (raw_reference(prepared, case) for case in case_ids):
        link = folder / reference.name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(reference)


def record_done(
    prepared: PreparedFolder,
    digests: Mapping[str, str],
    cases: Sequence[Case],
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
        "files": [os.path.relpath(file, prepared.root) for file in _planned_files(prepared)],
        "digests": {"dataset": dataset, **digests},
        "cases": len(surveys),
        "case_digests": {case: survey["digest"] for case, survey in surveys.items()},
        "convention": cases[0].convention,
        "patients": len({case.patient for case in cases}),
        "groups": None if groups is None else {f"fold_{fold}": group for fold, group in enumerate(groups)},
        "volumes_ml": {case: survey["volume_ml"] for case, survey in surveys.items()},
        "versions": dict(versions),
    }
    keep_record(prepared.done, digests["preparation"], content)


def read_done(prepared: PreparedFolder, preparation: str) -> dict[str, Any] | None:
    """Return the record of a finished preparation, or None if there is none.

    Raises:
        ProblemsFound: the record, the plans, the split or dataset.json are not as they were written (exit code 1).
    """
    if not prepared.done.exists():
        return None
    record = read_json(prepared.done, REMAKE, keys=DONE_KEYS)
    if kept_record(prepared.done, preparation) is not None:
        return dict(record)
    files = record["files"] if isinstance(record["files"], dict) else {}
    changed = [name for name in files if not is_as_described(prepared.root / name, files[name])]
    where = [prepared.root / name for name in changed] or [prepared.done]
    problems = [Problem(str(file), _what_is_there(file), "the file that was written", REMAKE) for file in where]
    raise DamagedFile(f"The prepared folder {prepared.root} was damaged or changed.", problems, exit_code=1)


def _what_is_there(file: Path) -> str:
    return f"other content, {file.stat().st_size} bytes" if file.is_file() else "nothing"


def _planned_files(prepared: PreparedFolder) -> list[Path]:
    """Return the files on which the trainings of all cases depend."""
    names = ("dataset.json", fingerprint_file(prepared.dataset).name)
    copies = [prepared.dataset / name for name in names]
    return [prepared.plans, prepared.splits, prepared.raw_dataset / "dataset.json", *copies]
