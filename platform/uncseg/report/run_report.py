"""The report: one run, however far it has come, or several side by side, as a page; its tables are files, too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import yaml

from uncseg.config.case_lists import short_lists
from uncseg.config.reading import read_saved
from uncseg.config.task_files import named_task
from uncseg.console import command_line
from uncseg.evaluation.expectation import maps_of
from uncseg.evaluation.failure_table import failures_table, regions_table, verdicts
from uncseg.evaluation.page_tables import dice_table, uncertainty_table
from uncseg.evaluation.tables import beats_floor
from uncseg.files import json_text, read_text, short_name, write_text
from uncseg.layout import RunFolder
from uncseg.page_table import PageTable
from uncseg.report.case_images import read_case
from uncseg.report.comparison import comparison_section
from uncseg.report.page import PageSection, Picture, Viewer, write_page
from uncseg.report.run_figures import ReportedRun, figure1, telling_cases
from uncseg.report.score_tables import scores_table
from uncseg.report.skipped import skipped_lines
from uncseg.report.slices import make_sheet
from uncseg.report.style import is_whole_picture, label_colours
from uncseg.report.work_list import work_list, work_table
from uncseg.table_files import write_table
from uncseg.tracking.manifest import read_manifest
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import read_history

CAPTIONS = {
    "figures/figure2.png": "Figure 2. Metrics over epochs: thin lines are folds, thick lines their mean. Table 2 "
    "averages the last epochs, which are shaded.",
    "figures/folds.png": "Dice out of fold: each point is a case; boxes are quartiles with the median.",
    "figures/risk_coverage.png": "Risk against coverage, out of fold: the error that is left when only the most "
    "certain cases are kept.",
    "tables/scores_reliability.png": "Reliability: share of wrong voxels against the uncertainty of each bin, out of "
    "fold, in the brain.",
}
"""Captions of a run's pictures by file."""
PAGE = "report.html"
"""Name of the page on a run alone."""
PAGE_TABLES = (
    *(f"tables/{name}.tex" for name in ("table1", "table2", "table3", "table4", "scores", "work_list")),
    *(f"tables/work_list.{ending}" for ending in ("csv", "parquet")),
)
"""Files that are written into a run's folder with every page on it."""
PROGRESS_PICTURES = 6
"""Pictures of a training on the page; the run has one per checkpoint."""


def write_report(runs: Sequence[ReportedRun], count: int = 6) -> Path:
    """Write the page, and every table of it as csv and LaTeX beside the runs' own tables, and return its path.

    A single run gets ``report.html``. For several, the first run gets ``report_NAME1_NAME2….html``; long names are cut.
    Each run's work list has ``count`` cases, each with a slice viewer if its images are at hand.
    """
    page = runs[0].folder.root / page_name(runs)
    if len(runs) == 1:
        title = f"{runs[0].name}: uncertainty of segmentation, {runs[0].task.title or runs[0].task.name}"
        write_page(page, title, [_run_section(runs[0], "", count)])
        return page
    names = [run.name for run in runs]
    joined, numbered = _joined_names(runs), list(enumerate(runs, start=1))
    runs = [run if names.count(run.name) == 1 else replace(run, name=f"{run.name} ({n})") for n, run in numbered]
    sections = [_run_section(run, f"run{n}-", count) for n, run in enumerate(runs, start=1)]
    write_page(page, " and ".join(run.name for run in runs), sections, comparison_section(runs, joined))
    return page


def page_name(runs: Sequence[ReportedRun]) -> str:
    """Return the name of the page in the folder of the first run."""
    return PAGE if len(runs) == 1 else f"report_{_joined_names(runs)}.html"


def _joined_names(runs: Sequence[ReportedRun]) -> str:
    return short_name("_".join(run.name for run in runs))


def _run_section(run: ReportedRun, prefix: str, count: int) -> PageSection:
    """Return a run's section of a page, whose anchors begin with ``prefix``, and write its tables as LaTeX."""
    names = ("table1", "table2", "table3", "table4", "scores_summary")
    table1, table2, table3, table4, summary = (run.table(name) for name in names)
    tables = [dice_table(table1, run.task)] if table1 is not None else []
    last_epochs = run.experiment.evaluation.last_epochs
    tables += [uncertainty_table(table2, last_epochs, run.task)] if table2 is not None else []
    tables += [failures_table(table3, run.task)] if table3 is not None else []
    tables += [regions_table(table4)] if table4 is not None else []
    chosen = maps_of(run.table("per_case"))
    tables += [scores_table(summary, chosen=chosen)] if summary is not None else []
    work, viewers = _work_list(run, prefix, count)
    for table in [*tables, *([work] if work is not None else [])]:
        write_text(run.folder.tables / f"{table.name}.tex", table.to_latex())
    missing, subtitle = [*_unfinished(run), *skipped_lines(run.folder, run.experiment)], "not evaluated yet"
    known = {"table1": table1, "table2": table2, "scores": summary}
    if absent := ", ".join(name for name, table in known.items() if table is None):
        again = command_line("uncseg", "evaluate", run.folder.root)
        missing.append(f"This run has no {absent} yet: {again}, once its folds are trained.")
    elif work is not None and not viewers:
        missing.append("The cases' images are not where the experiment says, so there are no slices to look at.")
    if table1 is not None:
        folds = ", ".join(sorted({str(fold) for fold in table1["fold"] if str(fold).isdigit()}))
        cases = table1.loc[table1["fold"] == "mean", "cases"].iloc[0]
        subtitle = f"{cases} cases, each predicted by the fold that did not see it; folds {folds}"
        subtitle += "; a patient may be in several" * run.experiment.split.allow_shared_patients
    figures, damaged = _whole(_figures(run))
    progress, broken = _whole(_progress(run.folder))
    missing += [f"{file.relative_to(run.folder.root)} is damaged, and is not shown." for file in [*damaged, *broken]]
    manifest = {name: value for name, value in read_manifest(run.folder.manifest).items() if name != "mlflow"}
    return PageSection(
        label=run.name,
        subtitle=subtitle,
        prefix=prefix,
        missing=missing,
        verdicts=[
            *([] if table3 is None else verdicts(table3)),
            *([] if table2 is None else beats_floor(table2)),
        ],
        tables=tables,
        figures=figures,
        progress=progress,
        work=work,
        viewers=viewers,
        commands=_commands(run.folder),
        labels=label_colours(run.task),
        configuration=_configuration(run.folder),
        environment=json_text(manifest, indent=2, sort_keys=True),
    )


def _configuration(folder: RunFolder) -> str:
    """Return the run's experiment file, in which lists of cases are shortened, and a built-in task is named."""
    content = read_saved(folder.experiment)
    short = named_task(short_lists(content))
    return read_text(folder.experiment) if short == content else yaml.safe_dump(short, sort_keys=False)


def _unfinished(run: ReportedRun) -> list[str]:
    """How far the unfinished folds have come, with one line for all that have come equally far."""
    alike: dict[str, list[str]] = {}
    for fold in range(run.experiment.split.folds):
        history = read_history(run.folder.spool, fold)
        if history.state == "finished":
            if lost := history.last_epoch + 1 - len(history.epochs):
                text = f"{lost} epoch{'s are' if lost > 1 else ' is'} missing in its spool, which was damaged."
                alike.setdefault(text, []).append(str(fold))
            continue
        state = {"waiting": "not started", "running": "running or interrupted"}.get(history.state, history.state)
        kept = f", {history.kept_epoch + 1} of them in a checkpoint" if history.last_epoch >= 0 else ""
        said = f": {history.message}" if history.message and history.state == "failed" else ""
        text = f"{history.last_epoch + 1} of {run.experiment.training.epochs} epochs trained{kept}; {state}{said}."
        alike.setdefault(text, []).append(str(fold))
    return [f"Fold{'s' * (len(folds) > 1)} {', '.join(folds)}: {text}" for text, folds in alike.items()]


def _work_list(run: ReportedRun, prefix: str, count: int) -> tuple[PageTable | None, list[Viewer]]:
    """The work list, and the slices of its cases whose images are at hand."""
    scores, per_case = run.table("scores"), run.table("per_case")
    if scores is None or per_case is None or count == 0:
        return None, []
    cases = work_list(scores, per_case, count, run.task)
    write_table(cases, run.folder.tables, "work_list")
    known = run.predicted()
    shown = [case for case in cases["case"] if case in known]
    links = {case: f"{prefix}case-{place}" for place, case in enumerate(shown, start=1)}
    table = work_table(cases, scores["case"].nunique(), count, links, run.task)
    viewers = []
    for row in table.rows:
        name, *cells, why = row.cells
        if name in known:
            figures = "; ".join(f"{head} {cell}" for head, cell in zip(table.header[1:-1], cells, strict=True) if cell)
            images = read_case(run.folder, known[name], run.task)
            labels = {"reference": images.reference, "prediction": images.prediction}
            maps = {shown: images.maps[shown] for shown in ("uncertainty", "error memory") if shown in images.maps}
            sheet = make_sheet(images.image, labels, maps, run.task)
            viewers.append(Viewer(name, row.link, f"{why}. {figures}", sheet))
    return table, viewers


def _figures(run: ReportedRun) -> list[Picture]:
    pictures = [Picture(run.folder.root / name, caption) for name, caption in CAPTIONS.items()]
    per_case, scores = run.table("per_case"), run.table("scores")
    if per_case is not None and scores is not None:
        telling = telling_cases(per_case, scores, run.task)
        for letter, (case, why) in zip(ascii_lowercase, telling.items(), strict=False):
            caption = f"Figure 1{letter}. {case}: {', '.join(why)}. The planes meet in the largest disagreement; all "
            pictures.append(Picture(figure1(run.folder, case), f"{caption}maps have the scale from 0 to 1."))
    return [picture for picture in pictures if picture.file.is_file()]


def _whole(pictures: Sequence[Picture]) -> tuple[list[Picture], list[Path]]:
    """Return the pictures that can be shown, and the files of those that are damaged."""
    damaged = [picture.file for picture in pictures if not is_whole_picture(picture.file)]
    return [picture for picture in pictures if picture.file not in damaged], damaged


def _progress(folder: RunFolder) -> list[Picture]:
    """Some of the pictures of the first fold that has any, the first and the last among them."""
    found = sorted(folder.progress.glob("fold_*_epoch_*.png"))
    of_fold = [file for file in found if file.name.split("_")[1] == found[0].name.split("_")[1]]
    if not of_fold:
        return []
    places = np.unique(np.linspace(0, len(of_fold) - 1, PROGRESS_PICTURES).round().astype(int))
    return [Picture(of_fold[place], f"epoch {int(of_fold[place].stem[-4:]) + 1}") for place in places]


def _commands(folder: RunFolder) -> str:
    lines = []
    commit = MlflowRecord.read(folder.manifest).tags.get("git_commit")
    if commit:
        clean = commit.removesuffix("-dirty")
        lines.append(
            command_line("git", "checkout", clean)
            + ("  # and changes that were not committed" if clean != commit else "")
        )
    lines.append("python -m pip install -c constraints.txt -e .")
    lines.append(command_line("uncseg", "cross-validate", folder.experiment, "--set", "storage.path=ELSEWHERE"))
    side_by_side = command_line("uncseg", "report", f"ELSEWHERE/{folder.root.name}", folder.root)
    return "\n".join([*lines, f"{side_by_side}  # side by side"])
