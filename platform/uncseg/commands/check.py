"""``uncseg check``: every problem of a BraTS folder."""

from pathlib import Path

from uncseg.console import console, show_warnings
from uncseg.dataset.check import check_dataset
from uncseg.dataset.labels import as_convention
from uncseg.dataset.patients import as_patients


def check_folder(folder: Path, convention: str | None = None, patients: str | None = None) -> int:
    """Check a folder; print what its labels mean, how many cases and patients it has, and what is odd.

    Args:
        convention: what the labels mean; None: as the files are named.
        patients: who is a patient, see :func:`~uncseg.dataset.patients.as_patients`.

    Raises:
        ProblemsFound: every problem at once.
    """
    checked = check_dataset(folder, as_convention(convention, "--convention"), as_patients(patients))
    known = checked.patients
    for note in checked.notes:
        console.print(note, soft_wrap=True)
    console.print(f"patients: {known}", soft_wrap=True)
    show_warnings(checked.warnings)
    count = len(checked.warnings)
    warnings = f", {count} warning{'s' * (count != 1)}" if count else ""
    cases, number = len(known.of), len(set(known.of.values()))
    console.print(
        f"{cases} case{'s' * (cases != 1)} of {number} patient{'s' * (number != 1)}, no problem found{warnings}"
    )
    return 0
