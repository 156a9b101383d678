"""``uncseg check``: every problem of a folder of cases."""

from pathlib import Path

from uncseg.config.task_files import require_task
from uncseg.console import console, show_warnings
from uncseg.dataset.check import check_dataset
from uncseg.dataset.folders import require_folder
from uncseg.dataset.labels import AS_SET, as_convention
from uncseg.dataset.patients import as_patients
from uncseg.dataset.told_task import describe_task, told_task


def check_folder(
    folder: Path, convention: str | None = None, patients: str | None = None, task: str | None = None
) -> int:
    """Check a folder; print its task, what its labels mean, how many cases and patients it has, and what is odd.

    Args:
        convention: of the task, for the labels; None: as the files are named.
        patients: who is a patient, see :func:`~uncseg.dataset.patients.as_patients`.
        task: a name or a file, see :func:`~uncseg.config.task_files.require_task`; None: the folder tells it.

    Raises:
        ProblemsFound: every problem at once.
    """
    named, setting = require_task(task), as_patients(patients)
    require_folder(folder)
    known, reason = told_task(folder) if named is None else (named, AS_SET)
    console.print(describe_task(known, reason), soft_wrap=True)
    checked = check_dataset(folder, known, as_convention(convention, "--convention", known), setting)
    for note in checked.notes:
        console.print(note, soft_wrap=True)
    console.print(f"patients: {checked.patients}", soft_wrap=True)
    show_warnings(checked.warnings)
    count = len(checked.warnings)
    warnings = f", {count} warning{'s' * (count != 1)}" if count else ""
    cases, number = len(checked.patients.of), len(set(checked.patients.of.values()))
    console.print(
        f"{cases} case{'s' * (cases != 1)} of {number} patient{'s' * (number != 1)}, no problem found{warnings}"
    )
    return 0
