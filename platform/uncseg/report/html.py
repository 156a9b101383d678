"""One page of one run or several that needs no network: tables, figures, and the cases to look at, slice by slice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import DictLoader, Environment
from matplotlib import colormaps
from matplotlib.colors import to_hex

from uncseg.config.experiment import Experiment
from uncseg.dataset.brats import BratsCase
from uncseg.evaluation.page_tables import dice_table, uncertainty_table
from uncseg.evaluation.tables import beats_floor
from uncseg.files import short_name, write_text
from uncseg.layout import RunFolder
from uncseg.page_table import PageTable
from uncseg.report.case_images import read_case
from uncseg.report.comparison import Compared, Results, compare_results
from uncseg.report.run_figures import figure1, telling_cases
from uncseg.report.score_tables import scores_table
from uncseg.report.slices import Sheet, data_url, make_sheet
from uncseg.report.style import LABEL_COLOURS, MAP_COLOURS
from uncseg.report.training_curves import Training, draw_trainings
from uncseg.report.work_list import work_list, work_table
from uncseg.table_files import read_table, write_table
from uncseg.tracking.manifest import read_manifest
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import epoch_table, read_history

CAPTIONS = {
    "figures/figure2.png": "Figure 2. Metrics over epochs: thin lines are folds, thick ones their mean; shaded are the "
    "last epochs, which Table 2 averages.",
    "figures/folds.png": "Dice out of fold: each case a point; boxes are quartiles with the median.",
    "figures/risk_coverage.png": "Risk against coverage, out of fold: what is left of the error when only the most "
    "certain cases are kept.",
    "tables/scores_reliability.png": "Reliability: share of wrong voxels against the uncertainty of each bin, out of "
    "fold, in the brain.",
}
FIGURE_1 = "Figure 1. {case}: {why}. All maps from 0 to 1; planes through the largest disagreement."
LEAFED = 6
"""Pictures of a training that the page shows, of all checkpoints."""


@dataclass(frozen=True)
class Reported:
    """A run, as far as it has come."""

    run: RunFolder
    experiment: Experiment
    cases: Sequence[BratsCase]
    """Those whose images are at hand."""


@dataclass(frozen=True)
class Viewer:
    """A case with its slices."""

    case: str
    anchor: str
    text: str
    sheet: Sheet
    number: int
    """Of the sheet on the page."""

    @property
    def names(self) -> list[str]:
        """Of the overlays."""
        return [name for name in self.sheet.layers if name != "image"]


def write_report(runs: Sequence[Reported], number: int = 6) -> Path:
    """Write the page, and every table of it as csv and LaTeX beside the runs' own tables.

    Args:
        runs: with one, the page is its ``report.html``; with more, ``report_NAME1_NAME2….html`` of the first, where
            long names are cut.
        number: of cases in each run's work list, each with a slice viewer where its images are at hand.

    Returns:
        The page.
    """
    labels = _labels(runs)
    sections: list[dict[str, Any]] = []
    viewers: list[Viewer] = []
    for place, (label, reported) in enumerate(zip(labels, runs, strict=True)):
        prefix = f"run{place + 1}-" if len(runs) > 1 else ""
        sections.append(_section(label, prefix, reported, number, len(viewers)))
        viewers += sections[-1]["viewers"]
    first = runs[0].run
    several = len(runs) > 1
    name = f"report_{_joined(runs)}.html" if several else "report.html"
    title = " and ".join(labels) if several else f"{labels[0]}: uncertainty of brain-tumour segmentation"
    page = page_template().render(
        title=title,
        comparison=_comparison(labels, runs) if several else None,
        sections=sections,
        sheets=[asdict(viewer.sheet) for viewer in viewers],
        colours=LABEL_COLOURS,
        scale=[to_hex(colormaps[MAP_COLOURS](step / 8)) for step in range(9)],
    )
    write_text(first.root / name, page)
    return first.root / name


def _labels(runs: Sequence[Reported]) -> list[str]:
    """Names of runs, told apart where two have one."""
    names = [reported.run.root.name for reported in runs]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]


def _joined(runs: Sequence[Reported]) -> str:
    return short_name("_".join(reported.run.root.name for reported in runs))


def page_template() -> Any:
    """The page, of sections as :func:`write_report` fills them."""
    parts = [part for part in files("uncseg.report").iterdir() if part.name.endswith(".html")]
    templates = {part.name: part.read_text(encoding="utf-8") for part in parts}
    # the page quotes names of files and cases that strangers chose
    environment = Environment(loader=DictLoader(templates), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html")


def _section(label: str, prefix: str, reported: Reported, number: int, sheets: int) -> dict[str, Any]:
    """What the page says of one run."""
    run = reported.run
    table1, table2, summary = (read_table(run.tables, name) for name in ("table1", "table2", "scores_summary"))
    tables = [dice_table(table1)] if table1 is not None else []
    tables += [uncertainty_table(table2, reported.experiment.evaluation.last_epochs)] if table2 is not None else []
    tables += [scores_table(summary)] if summary is not None else []
    work, viewers = _work(reported, prefix, number, sheets)
    for table in [*tables, *([work] if work is not None else [])]:
        write_text(run.tables / f"{table.name}.tex", table.to_latex())
    return {
        "label": label,
        "prefix": prefix,
        "subtitle": _subtitle(table1),
        "missing": _missing(reported, {"table1": table1, "table2": table2, "scores": summary}, work, viewers),
        "verdicts": [] if table2 is None else beats_floor(table2),
        "tables": tables,
        "figures": _figures(run),
        "progress": _progress(run),
        "work": work,
        "viewers": viewers,
        "commands": _commands(run),
        "configuration": run.experiment.read_text(encoding="utf-8"),
        "environment": _environment(run),
    }


def _subtitle(table1: pd.DataFrame | None) -> str:
    if table1 is None:
        return "not evaluated yet"
    folds = ", ".join(sorted({str(fold) for fold in table1["fold"] if str(fold).isdigit()}))
    cases = table1.loc[table1["fold"] == "mean", "cases"].iloc[0]
    return f"{cases} cases, each predicted by the fold that did not see it; folds {folds}"


def _missing(
    reported: Reported,
    tables: Mapping[str, pd.DataFrame | None],
    work: PageTable | None,
    viewers: Sequence[Viewer],
) -> list[str]:
    run = reported.run
    lines = _unfinished(run, reported.experiment)
    if any(table is None for table in tables.values()):
        names = ", ".join(name for name, table in tables.items() if table is None)
        lines.append(f"This run has no {names} yet: uncseg evaluate {run.root}, once its folds are trained.")
    elif work is not None and not viewers:
        lines.append("The cases' images are not where the experiment says, so there are no slices to look at.")
    return lines


def _unfinished(run: RunFolder, experiment: Experiment) -> list[str]:
    """How far the folds are that have not ended, by the spool; those that are equally far in one line."""
    alike: dict[str, list[str]] = {}
    for fold in range(experiment.split.folds):
        history = read_history(run.spool, fold)
        if history.state == "finished":
            continue
        state = {"waiting": "not started", "running": "running or interrupted"}.get(history.state, history.state)
        kept = f", {history.kept_epoch + 1} of them in a checkpoint" if history.last_epoch >= 0 else ""
        said = f": {history.message}" if history.message and history.state == "failed" else ""
        text = f"{history.last_epoch + 1} of {experiment.training.epochs} epochs trained{kept}; {state}{said}."
        alike.setdefault(text, []).append(str(fold))
    return [f"Fold{'s' * (len(folds) > 1)} {', '.join(folds)}: {text}" for text, folds in alike.items()]


def _work(reported: Reported, prefix: str, number: int, sheets: int) -> tuple[PageTable | None, list[Viewer]]:
    """The work list, and the slices of its cases whose images are at hand."""
    scores, per_case = (read_table(reported.run.tables, name) for name in ("scores", "per_case"))
    if scores is None or per_case is None or number == 0:
        return None, []
    cases = work_list(scores, per_case, number)
    write_table(cases, reported.run.tables, "work_list")
    by_id = {case.case_id: case for case in reported.cases}
    shown = [case for case in cases["case"] if case in by_id]
    links = {case: f"{prefix}case-{place}" for place, case in enumerate(shown, start=1)}
    table = work_table(cases, scores["case"].nunique(), number, links)
    cells = {row.cells[0]: row.cells for row in table.rows}
    viewers = []
    for place, case in enumerate(shown):
        text = "; ".join(
            f"{name} {cell}" for name, cell in zip(table.header[1:-1], cells[case][1:-1], strict=True) if cell
        )
        sheet = _sheet(reported.run, by_id[case])
        viewers.append(Viewer(case, links[case], f"{cells[case][-1]}. {text}", sheet, sheets + place))
    return table, viewers


def _sheet(run: RunFolder, case: BratsCase) -> Sheet:
    images = read_case(run, case)
    labels = {"reference": images.reference, "prediction": images.prediction}
    maps = {name: images.maps[name] for name in ("uncertainty", "error memory") if name in images.maps}
    return make_sheet(images.image, labels, maps)


def _comparison(labels: Sequence[str], runs: Sequence[Reported]) -> dict[str, Any]:
    results = [
        Results(
            label,
            reported.experiment,
            read_manifest(reported.run.manifest),
            *(read_table(reported.run.tables, name) for name in ("table1", "table2", "scores")),
        )
        for label, reported in zip(labels, runs, strict=True)
    ]
    compared, notes = compare_results(results)
    folder, names = runs[0].run.tables, _joined(runs)
    for part in compared:
        _write_compared(part, folder, names)
    trainings = [
        Training(label, epoch_table(reported.run.spool), reported.experiment.evaluation.last_epochs)
        for label, reported in zip(labels, runs, strict=True)
    ]
    file = runs[0].run.figures / f"figure2_{names}.png"
    draw_trainings(file, trainings)
    caption = "Figure 2 of both runs" if len(runs) == 2 else "Figure 2 of all runs"
    caption += ": a colour a run, thin lines are folds, thick ones their mean; shaded are the last epochs."
    return {"tables": [part.table for part in compared], "notes": notes, "figures": [picture(file, caption)]}


def _write_compared(part: Compared, folder: Path, names: str) -> None:
    name = f"comparison_{names}_{short_name(part.table.name.replace(' ', '_'))}"
    write_table(part.frame, folder, name)
    if part.table.rows:
        write_text(folder / f"{name}.tex", replace(part.table, name=name).to_latex())


def _figures(run: RunFolder) -> list[dict[str, str]]:
    shown = [(run.root / name, caption) for name, caption in CAPTIONS.items()]
    per_case, scores = (read_table(run.tables, name) for name in ("per_case", "scores"))
    if per_case is not None and scores is not None:
        for case, why in telling_cases(per_case, scores).items():
            shown.append((figure1(run, case), FIGURE_1.format(case=case, why=", ".join(why))))
    return [picture(file, caption) for file, caption in shown if file.is_file()]


def _progress(run: RunFolder) -> list[dict[str, str]]:
    """Some of the pictures of the first fold that has any, first and last among them."""
    found = sorted(run.progress.glob("fold_*_epoch_*.png"))
    of_fold = [file for file in found if file.name.split("_")[1] == found[0].name.split("_")[1]]
    step = max(1, len(of_fold) - 1) / (LEAFED - 1)
    places = dict.fromkeys(min(len(of_fold) - 1, round(number * step)) for number in range(LEAFED)) if of_fold else {}
    return [picture(of_fold[place], f"epoch {int(of_fold[place].stem[-4:]) + 1}") for place in places]


def picture(file: Path, caption: str) -> dict[str, str]:
    """A PNG as the page holds it."""
    return {"url": data_url("png", file.read_bytes()), "caption": caption}


def _commands(run: RunFolder) -> str:
    lines = []
    commit = MlflowRecord.read(run.manifest).tags.get("git_commit")
    if commit:
        clean = commit.removesuffix("-dirty")
        lines.append(f"git checkout {clean}" + ("  # and changes that were not committed" if clean != commit else ""))
    lines.append("python -m pip install -c constraints.txt -e .")
    lines.append(f"uncseg cross-validate {run.experiment} --set storage.path=ELSEWHERE")
    return "\n".join([*lines, f"uncseg report ELSEWHERE/{run.root.name} {run.root}  # side by side"])


def _environment(run: RunFolder) -> str:
    kept = {name: value for name, value in read_manifest(run.manifest).items() if name != "mlflow"}
    return json.dumps(kept, indent=2, sort_keys=True)
