"""Checks that find every problem of a BraTS folder before any work starts."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from uncseg.dataset.brats import BratsCase
from uncseg.dataset.case_volumes import read_case
from uncseg.dataset.labels import Convention, describe_convention
from uncseg.dataset.scan import Scan, scan_folder
from uncseg.errors import Problem, ProblemsFound, raise_if_any


@dataclass(frozen=True)
class CaseCheck:
    """What is wrong with a case, what is odd, and whether its reference has a tumour (None: unknown)."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    has_tumour: bool | None = None


@dataclass(frozen=True)
class DatasetCheck:
    """A folder without a problem.

    Args:
        scan: its cases.
        warnings: what is odd and can be used.
        notes: sentences on what the labels mean and what was left out.
    """

    scan: Scan
    warnings: list[Problem]
    notes: list[str]


def check_dataset(folder: Path, convention: Convention | None = None) -> DatasetCheck:
    """Open every file of every case of a BraTS folder.

    Args:
        folder: one folder per case.
        convention: what the labels mean; None: as the names of the files say.

    Raises:
        ProblemsFound: every problem of every case at once, of the layout and of the contents.
    """
    scan = scan_folder(folder, convention=convention)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = list(pool.map(check_case, scan.cases))
    problems = scan.problems + [problem for check in checks for problem in check.problems]
    if not problems and not any(check.has_tumour for check in checks):
        problems.append(no_tumour(str(folder)))
    raise_if_any(problems, f"The dataset {folder} cannot be used.", exit_code=1)
    warnings = [warning for check in checks for warning in check.warnings]
    return DatasetCheck(scan, warnings, [describe_convention(scan.convention, scan.convention_reason), *scan.notes])


def no_tumour(where: str) -> Problem:
    """Return the problem of cases none of which has a tumour in its reference."""
    return Problem(where, "no tumour in any reference", "labels 1, 2, 3", "give the folder that holds the references")


def check_case(case: BratsCase) -> CaseCheck:
    """Open all files of a case; whatever one of them holds, nothing is raised."""
    try:
        volumes = read_case(case)
    except ProblemsFound as error:
        return CaseCheck(error.problems)
    labels = volumes.labels
    return CaseCheck([], volumes.warnings, None if labels is None else bool(labels.any()))
