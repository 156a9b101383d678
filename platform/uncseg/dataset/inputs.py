"""Cases to predict: a folder of cases, or nnU-Net's plain input files (CASE_0000.nii.gz, CASE_0001.nii.gz, …)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uncseg.dataset.cases import Case, name_problems, names_of_maps
from uncseg.dataset.folders import References, Scan, require_folder
from uncseg.dataset.nnunet_folder import channel_files
from uncseg.dataset.patients import patient_of
from uncseg.dataset.scan import scan_folder
from uncseg.errors import Problem, ProblemsFound
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.nnunet_dataset import modalities_of
from uncseg.tasks.task import Task


def find_inputs(
    folder: Path,
    dataset_json: Mapping[str, Any],
    references: References = "ignored",
    convention: ConventionName | None = None,
    skip: Path | None = None,
    *,
    task: Task,
) -> Scan:
    """Find the cases to predict. A folder may hold nnU-Net's files and folders of cases side by side.

    Args:
        folder: holds nnU-Net's files, or one or many cases at any depth, with references or without.
        dataset_json: the model's; its channels tell how many images a case has, and in which order.
        references, convention, skip, task: see :func:`~uncseg.dataset.scan.scan_folder`.

    Raises:
        ProblemsFound: there is no such folder (exit code 2), nothing in it (1), or it has folders of cases and the
            model's channels are not the task's modalities.
    """
    require_folder(folder)
    channels = dataset_json["channel_names"]
    plain = channel_files(folder.resolve())
    cases, problems = _plain_cases(folder, plain, len(channels), task)
    taken = {file for by_channel in plain.values() for files in by_channel.values() for file in files}
    scan = scan_folder(folder, references, convention, skip=skip, taken=taken, task=task)
    if scan.cases:
        order = _order(list(channels.values()), folder, task)
        cases += [replace(case, images=tuple(case.images[n] for n in order)) for case in scan.cases]
    twice = [name for name, count in Counter(case.case_id for case in cases).items() if count > 1]
    problems += [
        Problem(
            name, "a folder of a case and nnU-Net's files of this name", "one of them", "rename or remove the other"
        )
        for name in twice
    ]
    overwritten = names_of_maps([case.case_id for case in cases], task)
    problems += overwritten.values()
    kept = [case for case in cases if case.case_id not in twice and case.case_id not in overwritten]
    return replace(scan, cases=sorted(kept, key=lambda case: case.case_id), problems=problems + scan.problems)


def _plain_cases(
    folder: Path, files: Mapping[str, Mapping[int, list[Path]]], channels: int, task: Task
) -> tuple[list[Case], list[Problem]]:
    cases, problems = [], []
    for name, by_channel in sorted(files.items()):
        twice = [" and ".join(file.name for file in found) for found in by_channel.values() if len(found) > 1]
        if unusable := name_problems(name):
            problems += unusable
        elif twice:
            problems.append(Problem(str(folder / name), "; ".join(twice), "one file per channel", "remove the others"))
        elif sorted(by_channel) == list(range(channels)):
            images = tuple(by_channel[n][0] for n in range(channels))
            cases.append(Case(name, patient_of(name, task), images, None, task.convention))
        else:
            found = "channels " + ", ".join(f"{n:04d}" for n in sorted(by_channel))
            expected = f"0000 to {channels - 1:04d}, as the model was trained with" if channels > 1 else "0000 alone"
            problems.append(Problem(str(folder / name), found, expected, "add or remove files"))
    return cases, problems


def _order(channels: Sequence[str], folder: Path, task: Task) -> list[int]:
    """Return the number of the task's modality for each of the model's channels; unnamed ones are in its order."""
    named = modalities_of(channels, task)
    known, in_order = [n for n in named if n is not None], list(range(len(task.modalities)))
    if len(channels) == len(task.modalities) and not known:
        return in_order
    if sorted(known) != in_order or len(known) != len(channels):
        found = f"channels {', '.join(channels)}, and a folder of cases, {folder}"
        expected = "each of " + ", ".join(task.modalities) + " once, by one of its usual names"
        advice = "give nnU-Net's files in the model's order, CASE_0000.nii.gz, …, or correct its dataset.json"
        problem = Problem("MODEL", found, expected, advice)
        raise ProblemsFound("It is not clear which image belongs to which channel.", [problem])
    return known
