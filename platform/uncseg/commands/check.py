"""``uncseg check``: every problem of a BraTS folder."""

from pathlib import Path

from uncseg.console import console, show_warnings
from uncseg.dataset.check import check_dataset
from uncseg.dataset.labels import as_convention


def check_folder(folder: Path, convention: str | None = None) -> int:
    """Check a folder; print what its labels mean, how many cases it has, and what is odd.

    Raises:
        ProblemsFound: every problem at once.
    """
    checked = check_dataset(folder, as_convention(convention, "--convention"))
    cases = checked.scan.cases
    for note in checked.notes:
        console.print(note, soft_wrap=True)
    show_warnings(checked.warnings)
    patients = len({case.patient for case in cases})
    count = len(checked.warnings)
    warnings = f", {count} warning{'s' * (count != 1)}" if count else ""
    console.print(f"{len(cases)} cases of {patients} patients, no problem found{warnings}")
    return 0
