"""Phantoms: synthetic cases of a task whose ambiguity is known exactly.

``phantom_bodies.py`` says which bodies a task's regions become, ``phantom_anatomy.py`` draws their surfaces and raters,
``phantom_images.py`` the images. The reference is one rater's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.config.sections import Dataset
from uncseg.dataset.patients import find_patients
from uncseg.dataset.phantom_anatomy import draw_anatomy, draw_rater
from uncseg.dataset.phantom_images import draw_images
from uncseg.dataset.volumes import Geometry, write_volume
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, file_digest, read_json, write_json
from uncseg.outputs import Outputs
from uncseg.partial_files import partial_folder, remove_partial
from uncseg.tasks.fields import ORACLE
from uncseg.tasks.task import Task

ORIGIN_MM = (0.0, -239.0, 0.0)
RECORD = "phantoms.json"
"""Written last; it holds the parameters of all phantoms in the folder."""
TWO_SCANS_EVERY = 5
STORED = (np.int16, np.float32)
"""How the files of the first modality, the second and so on are stored, in turn."""


@dataclass(frozen=True)
class PhantomCase:
    """One phantom: its name, and the numbers of its patient and scan, from 0."""

    name: str
    patient: int
    scan: int


def phantom_cases(cases: int, task: Task) -> list[PhantomCase]:
    """Return the first phantoms of a task.

    Every fifth patient has two scans, where the task's names of cases tell that they are one patient's.
    """
    twice = TWO_SCANS_EVERY if _names_tell_patients(task) else 0
    found = [
        PhantomCase(_name(task, patient, scan), patient, scan)
        for patient in range(cases)
        for scan in range(2 if twice and patient % twice == twice - 1 else 1)
    ]
    return found[:cases]


def write_phantoms(out: Path, cases: int, size: int, seed: int, task: Task) -> list[Path]:
    """Write phantoms as a folder of a task, with q as CASE-q.nii.gz, and return the cases' folders.

    Each has ``size`` voxels of 1 mm along each axis. q is the probability that a rater gives a voxel to the main
    region. Existing phantoms with the same parameters are kept, also those of a command that was stopped.

    Raises:
        ProblemsFound: the folder holds something else, someone has edited a file, or another command writes there.
    """
    planned = phantom_cases(cases, task)
    names = [case.name for case in planned]
    folders = [out / name for name in names]
    drawn_from = task.model_dump(mode="json", include={"modalities", "labels", "regions", "main_region", "phantom"})
    files = task.conventions[task.convention].model_dump(mode="json", exclude={"title"})
    what = {"task": task.name, "digest": digest([drawn_from, files])[:10]}
    record, parameters = out / RECORD, {"cases": cases, "size": size, "seed": seed, **what}
    outputs, drawn = Outputs(out, "phantoms", "OUT"), digest(parameters)
    written = [_case_files(case.name, task) for case in planned]
    write_case = partial(_write_case, size=size, seed=seed, task=task)
    whole = record.is_file() and _read_record(record) == parameters
    if whole:
        outputs.noted()
        if all(outputs.is_whole(file, drawn) for wanted in written for file in wanted):
            return folders
        _note_again(outputs, drawn, zip(planned, written, strict=True), write_case)
    elif out.is_dir() and (record.exists() or _other_names(out, names)):
        found = f"phantoms with {_read_record(record)}" if record.exists() else "other files"
        problem = Problem(str(out), found, f"an empty folder, or phantoms with {parameters}", "choose another folder")
        raise ProblemsFound("The phantoms cannot be written.", [problem])
    with outputs.claimed([RECORD, *(file for wanted in written for file in wanted)], owner=drawn):
        for case, folder, wanted in zip(planned, folders, written, strict=True):
            if not all(outputs.is_whole(file, drawn) for file in wanted):
                remove_partial(folder)
                write_case(folder, case)
        write_json(record, parameters)
        outputs.pack()
    return folders


def _note_again(
    outputs: Outputs,
    drawn: str,
    written: Iterable[tuple[PhantomCase, list[str]]],
    write_case: Callable[[Path, PhantomCase], None],
) -> None:
    """Note files of whole phantoms that the record has lost, if they are what would be written."""
    with partial_folder(outputs.folder) as again:
        same = [RECORD] * (RECORD not in outputs.known)
        for case, files in written:
            lost = [file for file in files if file not in outputs.known and (outputs.folder / file).is_file()]
            if lost:
                write_case(again / case.name, case)
                same += [file for file in lost if file_digest(outputs.folder / file) == file_digest(again / file)]
        outputs.adopt(same, drawn)


def _read_record(record: Path) -> Any:
    return read_json(record, f"delete {record}: the same command then writes what is missing or damaged")


def _other_names(folder: Path, names: Iterable[str]) -> bool:
    """Return whether a folder holds anything but what may have these names; hidden files do not count."""
    return any(path.name not in names and not path.name.startswith(".") for path in folder.iterdir())


def _case_files(name: str, task: Task) -> list[str]:
    """Return the files of a phantom, relative to the folder of all."""
    convention = task.conventions[task.convention]
    endings = (*(convention.images[modality] for modality in task.modalities), convention.mask, ORACLE)
    return [f"{name}/{name}{ending}.nii.gz" for ending in endings]


def write_missing_phantoms(dataset: Dataset) -> None:
    """Write the phantoms that an experiment asks for, unless its folder holds other cases."""
    if (phantoms := dataset.phantoms) is None:
        return
    names = [case.name for case in phantom_cases(phantoms.cases, dataset.task)]
    if not (dataset.path.is_dir() and _other_names(dataset.path, names)):
        write_phantoms(dataset.path, phantoms.cases, phantoms.size, phantoms.seed, dataset.task)


def _name(task: Task, patient: int, scan: int) -> str:
    return (task.phantom.cases or f"{task.name}-{{patient:05d}}-{{scan:03d}}").format(patient=patient, scan=scan)


def _names_tell_patients(task: Task) -> bool:
    names = {_name(task, 0, scan) for scan in range(2)}
    patients, problems = find_patients(names, task.patients, task=task)
    return len(names) == 2 and not problems and len(set(patients.of.values())) == 1


def _write_case(folder: Path, case: PhantomCase, size: int, seed: int, task: Task) -> None:
    random = np.random.default_rng([seed, case.patient, 1 + case.scan])
    anatomy = draw_anatomy(size, np.random.default_rng([seed, case.patient, 0]), random, task)
    geometry = Geometry((size, size, size), (1.0, 1.0, 1.0), ORIGIN_MM, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    convention, values = task.conventions[task.convention], task.values(task.convention)
    for number, (modality, image) in enumerate(draw_images(anatomy, random, task).items()):
        stored = STORED[number % len(STORED)]
        rounded = np.round(image) if np.issubdtype(stored, np.integer) else image
        write_volume(folder / f"{case.name}{convention.images[modality]}.nii.gz", rounded.astype(stored), geometry)
    value_of = np.array([0, *(values[label] for label in task.labels)])
    labels = value_of[draw_rater(anatomy, random)].astype(np.min_scalar_type(value_of.max()))
    write_volume(folder / f"{case.name}{convention.mask}.nii.gz", labels, geometry)
    write_volume(folder / f"{case.name}{ORACLE}.nii.gz", anatomy.q, geometry)
