"""Checks that find every problem of a folder of cases before any work starts."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from uncseg.config.case_lists import PatientList
from uncseg.config.list_files import first_problems
from uncseg.dataset.case_volumes import read_case_volumes
from uncseg.dataset.cases import Case
from uncseg.dataset.folders import Scan
from uncseg.dataset.labels import describe_convention, in_main_region
from uncseg.dataset.mask_values import problems_of_values, values_of_mask
from uncseg.dataset.patients import OPTION, UNKNOWN, Patients, find_patients
from uncseg.dataset.scan import scan_folder
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.task import Task

MOST_CASES_AT_ONCE = 8
"""Cases that are held in memory at a time: about 0.2 GB each at full size."""


@dataclass(frozen=True)
class CaseCheck:
    """What is wrong with a case, what is odd, whether its reference has the main region, and its images."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    has_main: bool | None = None
    """None: unknown."""
    digest: str | None = None
    """Of the images' voxels; None where they cannot be used."""


@dataclass(frozen=True)
class DatasetCheck:
    """A folder without a problem.

    Args:
        scan: its cases.
        patients: of these cases.
        warnings: what is odd and can be used.
        notes: sentences on what the labels mean and what was left out.
    """

    scan: Scan
    patients: Patients
    warnings: list[Problem]
    notes: list[str]


def check_dataset(
    folder: Path, task: Task, convention: ConventionName | None = None, patients: PatientList | str | None = None
) -> DatasetCheck:
    """Open every file of every case of a folder.

    Args:
        folder: one folder per case, or nnU-Net's raw dataset.
        task: what the files mean.
        convention: of the task, for the labels; None: as the names of the files say.
        patients: who is a patient, as the option ``--patients`` says; None: the names tell.

    Raises:
        ProblemsFound: every problem of every case at once, of the layout, of the contents, and of who is a patient
            (exit code 2 if there are no others); or the task does not fit the files (2).
    """
    scan = scan_folder(folder, convention=convention, task=task)
    known, unknown = find_patients([case.case_id for case in scan.cases], patients, OPTION, task=task)
    check = partial(check_case, task=task)
    with ThreadPoolExecutor(min(MOST_CASES_AT_ONCE, os.cpu_count() or 1)) as pool:
        checks, incomplete = list(pool.map(check, scan.cases)), list(pool.map(check, scan.partial))
        # what lies outside the cases, as a full folder of temporary files, is said once
        problems = list(dict.fromkeys([*scan.problems, *(p for found in checks + incomplete for p in found.problems)]))
        problems += _problems_of_masks(folder, scan, problems, pool)
    if not problems and not any(found.has_main for found in checks):
        problems.append(none_of_main_region(str(folder), task))
    title = f"The dataset {folder} cannot be used."
    raise_if_any(problems + unknown, title if problems else UNKNOWN, exit_code=1 if problems else 2)
    same = same_cases({case.case_id: str(found.digest) for case, found in zip(scan.cases, checks, strict=True)})
    warnings = [*(warning for found in checks for warning in found.warnings), *same, *known.warnings]
    notes = [describe_convention(scan.convention, scan.convention_reason, task), *scan.notes]
    return DatasetCheck(scan, known, warnings, notes)


def _problems_of_masks(folder: Path, scan: Scan, problems: list[Problem], pool: ThreadPoolExecutor) -> list[Problem]:
    """Return what the values of all masks together say, if one of the masks has a problem."""
    files = {case.case_id: case.reference for case in (*scan.cases, *scan.partial) if case.reference is not None}
    if not {str(file) for file in files.values()} & {problem.where for problem in problems}:
        return []
    values = dict(zip(files, pool.map(values_of_mask, files.values()), strict=True))
    known = {case: found for case, found in values.items() if found is not None}
    return problems_of_values(folder, known, scan.task, scan.convention)


def none_of_main_region(where: str, task: Task) -> Problem:
    """Return the problem of cases none of which has the main region in its reference."""
    region, labels = task.main_region, " or ".join(task.regions[task.main_region])
    name = f"{region} ({task.meanings[region]})" if region in task.meanings else region
    advice = "give the folder that holds the references"
    return Problem(where, f"no {name} in any reference", f"labels {labels} in some of them", advice)


def same_cases(digests: Mapping[str, str]) -> list[Problem]:
    """Return a warning per case that is another one under a second name, and so may be in two folds.

    Args:
        digests: of what each case holds.
    """
    first: dict[str, str] = {}
    advice = "leave one of them out, or check whether it was copied by mistake"
    return first_problems(
        [
            Problem(case, f"the same images as {first[content]}", "another scan", advice)
            for case, content in sorted(digests.items())
            if first.setdefault(content, case) != case
        ]
    )


def check_case(case: Case, task: Task) -> CaseCheck:
    """Open all files of a case of a task; whatever one of them holds, nothing is raised."""
    try:
        volumes = read_case_volumes(case, task)
    except ProblemsFound as error:
        return CaseCheck(error.problems)
    labels, content = volumes.labels, hashlib.blake2b()
    for image in volumes.images:
        content.update(image.voxels.tobytes())
    has_main = None if labels is None else bool(in_main_region(labels, task).any())
    return CaseCheck([], volumes.warnings, has_main, content.hexdigest())
