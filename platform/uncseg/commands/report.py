"""``uncseg report``: one page on one or several runs."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from uncseg.console import console
from uncseg.dataset.preparation import cases_of
from uncseg.errors import ProblemsFound
from uncseg.report.run_figures import FIGURES, ReportedRun, draw_run, page_outputs
from uncseg.report.run_report import PAGE_TABLES, page_name, write_report
from uncseg.runs.run_data import changed_cases
from uncseg.runs.run_opening import open_existing_run, warn_of_changes
from uncseg.tracking.lost_epochs import require_epochs
from uncseg.tracking.manifest import read_manifest


def report_runs(roots: Sequence[Path], cases: int) -> int:
    """Draw the figures of the runs, finished or not, and write one page on them into the folder of the first.

    Args:
        roots: the folders of different runs.
        cases: number of cases in each run's work list that have a slice viewer.

    Raises:
        ProblemsFound: someone else's file has a name that is needed, or someone edited ours.
    """
    runs = [_open(root) for root in roots]
    for run in runs:
        page_outputs(run.folder).require_own(FIGURES)
    with ExitStack() as claimed:
        for run in runs:
            names = [*PAGE_TABLES, *([page_name(runs)] if run is runs[0] else [])]
            claimed.enter_context(page_outputs(run.folder).claimed(names))
        for run in runs:
            draw_run(run)
        page = write_report(runs, cases)
    console.print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    return 0


def _open(root: Path) -> ReportedRun:
    folder, experiment = open_existing_run(root)
    read_manifest(folder.manifest)  # damaged, it is named before anything is drawn
    require_epochs([folder])
    try:
        changed = changed_cases(folder, experiment)
        found = [case for case in cases_of(experiment).cases if case.case_id not in changed]
    except ProblemsFound:  # the page mentions it
        found = []
    warn_of_changes(folder, experiment, "the page shows what was computed before, and no slices of such cases")
    return ReportedRun(folder.root.name, folder, experiment, found)
