"""``uncseg report``: a run as one page, or several side by side."""

from collections.abc import Sequence
from pathlib import Path

from uncseg.console import console
from uncseg.dataset.brats import scan_folder
from uncseg.errors import Problem, ProblemsFound
from uncseg.report.reported_run import ReportedRun
from uncseg.report.run_figures import draw_run
from uncseg.report.run_report import write_report
from uncseg.runs.run_opening import open_existing_run


def report_runs(roots: Sequence[Path], cases: int) -> int:
    """Draw the runs' figures and write the page of one run, or of several, however far they have come.

    Args:
        roots: the runs' folders; the first gets the page.
        cases: in each run's work list, with a slice viewer.

    Raises:
        ProblemsFound: where one is no run (a sweep's trials are), or the same twice.
    """
    places = [root.resolve() for root in roots]
    if len(set(places)) < len(places):
        problem = Problem("RUN", ", ".join(map(str, roots)), "runs that differ", "give each run once")
        raise ProblemsFound("The runs cannot be compared.", [problem])
    runs = [_open(root) for root in roots]
    for run in runs:
        draw_run(run)
    page = write_report(runs, cases)
    console.print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    return 0


def _open(root: Path) -> ReportedRun:
    folder, experiment = open_existing_run(root)
    try:
        found, _ = scan_folder(experiment.dataset.path)
    except ProblemsFound:  # the page says so
        found = []
    return ReportedRun(folder.root.name, folder, experiment, found)
