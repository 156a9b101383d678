"""``uncseg report``: a run as one page."""

from pathlib import Path

from uncseg.commands.evaluate import run_to_use
from uncseg.console import console
from uncseg.dataset.brats import scan_folder
from uncseg.errors import ProblemsFound
from uncseg.report.html import write_report


def report_run(root: Path, cases: int) -> int:
    """Write the report of a run, however far it has come.

    Args:
        root: the run's folder.
        cases: with a slice viewer.

    Raises:
        ProblemsFound: where there is no such run.
    """
    run, experiment = run_to_use(root)
    try:
        found, _ = scan_folder(experiment.dataset.path)
    except ProblemsFound:  # the page says so
        found = []
    page = write_report(run, found, cases)
    console.print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    return 0
