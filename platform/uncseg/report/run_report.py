"""The report: one run, or several side by side, as a page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from uncseg.files import short_name
from uncseg.report.comparison import comparison_section
from uncseg.report.page import write_page
from uncseg.report.run_section import ReportedRun, run_section


def write_report(runs: Sequence[ReportedRun], count: int = 6) -> Path:
    """Write the page, and every table of it as csv and LaTeX beside the runs' own tables.

    Args:
        runs: a single run gets ``report.html``. For several, the first run gets ``report_NAME1_NAME2….html``; long
            names are cut.
        count: cases in each run's work list, each with a slice viewer if its images are at hand.

    Returns:
        The page.
    """
    first = runs[0].folder
    if len(runs) == 1:
        page = first.root / "report.html"
        write_page(page, f"{runs[0].name}: uncertainty of brain-tumour segmentation", [run_section(runs[0], "", count)])
        return page
    joined = short_name("_".join(run.name for run in runs))
    names = [run.name for run in runs]
    runs = [
        run if names.count(run.name) == 1 else replace(run, name=f"{run.name} ({place})")
        for place, run in enumerate(runs, start=1)
    ]
    sections = [run_section(run, f"run{place}-", count) for place, run in enumerate(runs, start=1)]
    page = first.root / f"report_{joined}.html"
    write_page(page, " and ".join(run.name for run in runs), sections, comparison_section(runs, joined))
    return page
