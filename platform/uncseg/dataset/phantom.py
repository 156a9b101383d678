"""Phantoms: synthetic cases of a task whose ambiguity is known exactly.

``phantom_bodies.py`` says which bodies a task's regions become, ``phantom_anatomy.py`` draws their surfaces and raters,
``phantom_images.py`` the images. The reference is one rater's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uncseg.config.sections import Dataset
from uncseg.dataset.patients import find_patients
from uncseg.dataset.phantom_anatomy import draw_anatomy, draw_rater
from uncseg.dataset.phantom_images import draw_images
from uncseg.dataset.volumes import Geometry, write_volume
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, read_json, write_json
from uncseg.tasks.fields import ORACLE
from uncseg.tasks.task import Task

ORIGIN_MM = (0.0, -239.0, 0.0)
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
    region. Existing phantoms with the same parameters are kept.

    Raises:
        ProblemsFound: the folder holds something else.
    """
    planned = phantom_cases(cases, task)
    names = [case.name for case in planned]
    folders = [out / name for name in names]
    drawn_from = task.model_dump(mode="json", include={"modalities", "labels", "regions", "main_region", "phantom"})
    files = task.conventions[task.convention].model_dump(mode="json", exclude={"title"})
    what = {"task": task.name, "digest": digest([drawn_from, files])[:10]}
    record, parameters = out / "phantoms.json", {"cases": cases, "size": size, "seed": seed, **what}
    if record.is_file() and read_json(record) == parameters:
        return folders
    if out.is_dir() and (record.exists() or any(path.name not in names for path in out.iterdir())):
        found = f"phantoms with {read_json(record)}" if record.exists() else "other files"
        problem = Problem(str(out), found, f"an empty folder, or phantoms with {parameters}", "choose another folder")
        raise ProblemsFound("The phantoms cannot be written.", [problem])
    for case, folder in zip(planned, folders, strict=True):
        _write_case(folder, case, size, seed, task)
    write_json(record, parameters)
    return folders


def write_missing_phantoms(dataset: Dataset) -> None:
    """Write the phantoms that an experiment asks for, unless its folder holds other cases."""
    if (phantoms := dataset.phantoms) is None:
        return
    names = [case.name for case in phantom_cases(phantoms.cases, dataset.task)]
    if not (dataset.path.is_dir() and any(path.name not in names for path in dataset.path.iterdir())):
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
