"""Checks that find every problem of a BraTS folder before any work starts."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from uncseg.config.case_lists import PatientList
from uncseg.config.list_files import first_problems
from uncseg.dataset.case_volumes import read_case_volumes
from uncseg.dataset.cases import Case
from uncseg.dataset.labels import Convention, describe_convention
from uncseg.dataset.patients import OPTION, UNKNOWN, Patients, find_patients
from uncseg.dataset.scan import Scan, scan_folder
from uncseg.errors import Problem, ProblemsFound, raise_if_any

MOST_CASES_AT_ONCE = 8
"""Cases that are held in memory at a time: about 0.2 GB each at full size."""


@dataclass(frozen=True)
class CaseCheck:
    """What is wrong with a case, what is odd, whether its reference has a tumour (None: unknown), and its images."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    has_tumour: bool | None = None
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
    folder: Path, convention: Convention | None = None, patients: PatientList | str | None = None
) -> DatasetCheck:
    """Open every file of every case of a BraTS folder.

    Args:
        folder: one folder per case.
        convention: what the labels mean; None: as the names of the files say.
        patients: who is a patient, as the option ``--patients`` says; None: the names tell.

    Raises:
        ProblemsFound: every problem of every case at once, of the layout, of the contents, and of who is a patient
            (exit code 2 if there are no others).
    """
    scan = scan_folder(folder, convention=convention)
    known, unknown = find_patients([case.case_id for case in scan.cases], patients, OPTION)
    with ThreadPoolExecutor(min(MOST_CASES_AT_ONCE, os.cpu_count() or 1)) as pool:
        checks = list(pool.map(check_case, scan.cases))
        partial = list(pool.map(check_case, scan.partial))
    problems = scan.problems + [problem for check in checks + partial for problem in check.problems]
    if not problems and not any(check.has_tumour for check in checks):
        problems.append(no_tumour(str(folder)))
    title = f"The dataset {folder} cannot be used."
    raise_if_any(problems + unknown, title if problems else UNKNOWN, exit_code=1 if problems else 2)
    same = same_cases({case.case_id: str(check.digest) for case, check in zip(scan.cases, checks, strict=True)})
    warnings = [*(warning for check in checks for warning in check.warnings), *same, *known.warnings]
    notes = [describe_convention(scan.convention, scan.convention_reason), *scan.notes]
    return DatasetCheck(scan, known, warnings, notes)


def no_tumour(where: str) -> Problem:
    """Return the problem of cases none of which has a tumour in its reference."""
    return Problem(where, "no tumour in any reference", "labels 1, 2, 3", "give the folder that holds the references")


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


def check_case(case: Case) -> CaseCheck:
    """Open all files of a case; whatever one of them holds, nothing is raised."""
    try:
        volumes = read_case_volumes(case)
    except ProblemsFound as error:
        return CaseCheck(error.problems)
    labels, content = volumes.labels, hashlib.blake2b()
    for image in volumes.images:
        content.update(image.voxels.tobytes())
    has_tumour = None if labels is None else bool(labels.any())
    return CaseCheck([], volumes.warnings, has_tumour, content.hexdigest())
