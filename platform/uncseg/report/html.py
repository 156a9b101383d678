"""One page of a run that needs no network: tables, figures, and the cases to look at, slice by slice."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from uncseg.dataset.brats import MODALITIES, BratsCase, read_reference, read_voxels
from uncseg.evaluation.tables import DICE_COLUMNS, PAPER, beats_floor, spread
from uncseg.files import write_text
from uncseg.layout import CaseFiles, RunFolder
from uncseg.report.score_tables import SHOWN, interval
from uncseg.report.slices import Sheet, data_url, make_sheet
from uncseg.report.style import LABEL_COLOURS
from uncseg.tracking.manifest import read_manifest

FIGURES = {
    "overlay.png": "The case of median Dice: image, reference, prediction, error memory, uncertainty",
    "correlation.png": "Correlation with the error memory over epochs, mean over folds in a band of one sample sd",
    "dice.png": "Dice of validation patches over epochs, mean over folds in a band of one sample sd",
    "scores_reliability.png": "Share of wrong voxels against the uncertainty of each bin, out of fold",
}


@dataclass(frozen=True)
class Row:
    """Cells of a table, and what kind of row it is: "", strong, floor, part."""

    cells: Sequence[str]
    kind: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Row]
    note: str


@dataclass(frozen=True)
class Viewer:
    """A case with its slices."""

    case: str
    why: str
    figures: str
    sheet: Sheet

    @property
    def names(self) -> list[str]:
        """Of the overlays."""
        return [name for name in self.sheet.layers if name != "image"]


def write_report(run: RunFolder, cases: Sequence[BratsCase], number: int = 6) -> Path:
    """Write ``report.html``, and tables 1 and 2 as LaTeX.

    Args:
        run: as far as it has come: what is missing is named on the page.
        cases: those whose images are at hand.
        number: of cases with a slice viewer.

    Returns:
        The page.
    """
    tables = {name: _read(run.tables / f"{name}.parquet") for name in ("table1", "table2", "scores_summary")}
    table1, table2, summary = tables.values()
    shown = []
    if table1 is not None:
        shown.append(_first(table1))
    if table2 is not None:
        shown.append(_second(table2))
    if summary is not None:
        shown.append(_scores(summary))
    for name, frame in (("table1", table1), ("table2", table2)):
        if frame is not None:
            write_text(run.tables / f"{name}.tex", frame.to_latex(index=False, float_format="%.4f", escape=True))
    viewers = _viewers(run, cases, number)
    page = _template().render(
        title=f"{run.root.name}: uncertainty of brain-tumour segmentation",
        subtitle=_subtitle(table1),
        missing=_missing(run, tables, viewers),
        verdicts=[] if table2 is None else beats_floor(table2),
        tables=shown,
        figures=_figures(run),
        viewers=viewers,
        sheets=[asdict(viewer.sheet) for viewer in viewers],
        colours=LABEL_COLOURS,
        commands=_commands(run),
        configuration=run.experiment.read_text(encoding="utf-8"),
        environment=_environment(run),
    )
    target = run.root / "report.html"
    write_text(target, page)
    return target


def _template() -> Any:
    # the page quotes names of files and cases that strangers chose
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("uncseg.report").joinpath("page.html").read_text(encoding="utf-8"))


def _read(file: Path) -> pd.DataFrame | None:
    return pd.read_parquet(file) if file.is_file() else None


def _subtitle(table1: pd.DataFrame | None) -> str:
    if table1 is None:
        return "not evaluated yet"
    folds = ", ".join(sorted({str(fold) for fold in table1["fold"] if str(fold).isdigit()}))
    cases = table1.loc[table1["fold"] == "mean", "cases"].iloc[0]
    return f"{cases} cases, each predicted by the fold that did not see it; folds {folds}"


def _missing(run: RunFolder, tables: Mapping[str, pd.DataFrame | None], viewers: Sequence[Viewer]) -> list[str]:
    lines = []
    if any(table is None for table in tables.values()):
        names = ", ".join(name for name, table in tables.items() if table is None)
        lines.append(f"This run has no {names} yet: uncseg evaluate {run.root}, once its folds are trained.")
    elif not viewers:
        lines.append("The cases' images are not where the experiment says, so there are no slices to look at.")
    return lines


def _first(table: pd.DataFrame) -> PageTable:
    rows = []
    for model, part in table.groupby("model", sort=False):
        by_fold = {row["fold"]: row for row in part.to_dict("records")}
        mean, sd = by_fold.pop("mean"), by_fold.pop("sd")
        paper = by_fold.pop(PAPER, None)
        for fold, row in by_fold.items():
            rows.append(Row([str(model), str(fold), str(row["cases"]), *(f"{row[c]:.4f}" for c in DICE_COLUMNS)]))
        spreads = [spread(mean[c], sd[c], 4, " ± ") for c in DICE_COLUMNS]
        rows.append(Row([str(model), "mean ± sd", str(mean["cases"]), *spreads], "strong"))
        if paper is not None:
            figures = [f"{paper[c]:.4f}" for c in DICE_COLUMNS]
            rows.append(Row([str(model), "paper (anchor)", str(paper["cases"]), *figures], "floor"))
    note = (
        "Dice of whole regions, mean over a fold's cases, then over folds; sd: sample, over folds. Paper: BraTS 2023."
    )
    return PageTable("table1", "Table 1. Dice out of fold", ["", "fold", "cases", *DICE_COLUMNS.values()], rows, note)


def _second(table: pd.DataFrame) -> PageTable:
    columns = [f"{kind}_{what}" for kind in ("corr", "rmsd") for what in ("ema_last", "ema_final", "failure")]
    rows = []
    for protocol, part in table.groupby("protocol", sort=False):
        rows.append(Row([f"{protocol} mask", *[""] * (len(columns) + 2)], "part"))
        for row in part.to_dict("records"):
            cells = [spread(row[c], row[f"{c}_std"], 3, " ± ") for c in columns]
            paper = [
                "" if math.isnan(row[f"paper_{kind}"]) else f"{row[f'paper_{kind}']:g}" for kind in ("corr", "rmsd")
            ]
            name = f"{row['estimator']}{' *' if row['floor'] else ''}"
            rows.append(Row([name, *cells, *paper], "floor" if row["floor"] else ""))
    names = [f"{kind} {what}" for kind in ("corr", "RMSD") for what in ("ema", "ema, final", "failure")]
    note = (
        "mean ± sample sd over folds. ema: against the error memory on validation patches; failure: against the single "
        "error out of fold. * floor: needs no training. The paper's figures are anchors; its RMSD is probably on a "
        "compressed scale."
    )
    header = ["estimator", *names, "paper corr", "paper RMSD"]
    return PageTable("table2", "Table 2. Uncertainty against error", header, rows, note)


def _scores(summary: pd.DataFrame) -> PageTable:
    regions = list(dict.fromkeys(summary["region"]))
    by_name = summary.set_index(["figure", "region"])
    rows = [
        Row([name, *(interval(by_name.loc[(figure, region)], 3) for region in regions)], "floor" if "*" in name else "")
        for figure, name in SHOWN.items()
        if (figure, regions[0]) in by_name.index
    ]
    note = "mean over cases [95 % interval, patients resampled]. * floor: needs no model."
    return PageTable("scores", "Scores out of fold", ["", *regions], rows, note)


def _figures(run: RunFolder) -> list[dict[str, str]]:
    found = [(folder / name, caption) for name, caption in FIGURES.items() for folder in (run.figures, run.tables)]
    return [
        {"url": data_url("png", file.read_bytes()), "caption": caption} for file, caption in found if file.is_file()
    ]


def _viewers(run: RunFolder, cases: Sequence[BratsCase], number: int) -> list[Viewer]:
    """The worst and the most uncertain cases whose images are at hand."""
    scores = _read(run.tables / "scores.parquet")
    if scores is None:
        return []
    by_id = {case.case_id: case for case in cases}
    wt = scores[(scores["region"] == "WT") & scores["case"].isin(list(by_id))].set_index("case")
    half = (number + 1) // 2
    chosen = dict.fromkeys(wt.sort_values("dice").index[:half], "among the worst")
    if "mean_uncertainty" in wt:
        for case in wt.sort_values("mean_uncertainty", ascending=False).index[: number - half]:
            chosen[case] = ", ".join(filter(None, [chosen.get(case), "among the most uncertain"]))
    rows = dict(wt.iterrows())
    return [_viewer(run, by_id[case], why, rows[case]) for case, why in chosen.items()]


def _viewer(run: RunFolder, case: BratsCase, why: str, row: pd.Series) -> Viewer:
    files_of = CaseFiles(run.out_of_fold, case.case_id)
    reference, _ = read_reference(case)
    labels = {"reference": reference, "prediction": read_voxels(files_of.segmentation)}
    maps = {"uncertainty": "uncertainty", "error": "error memory"}
    present = {shown: read_voxels(files_of.map(name)) for name, shown in maps.items() if files_of.map(name).is_file()}
    figures = f"fold {row['fold']}, WT Dice {row['dice']:.3f}, HD95 {row['hd95_mm']:.1f} mm"
    if "mean_uncertainty" in row:
        figures += f", mean uncertainty {row['mean_uncertainty']:.3f}"
    image = read_voxels(case.images[MODALITIES.index("t2f")])
    return Viewer(case.case_id, why, figures, make_sheet(image, labels, present))


def _commands(run: RunFolder) -> str:
    lines = [f"uncseg cross-validate {run.experiment}", f"uncseg report {run.root}"]
    commit = read_manifest(run).get("tags", {}).get("git_commit")
    return "\n".join([*([f"git checkout {commit}"] if commit else []), *lines])


def _environment(run: RunFolder) -> str:
    kept = {name: value for name, value in read_manifest(run).items() if name != "mlflow"}
    return json.dumps(kept, indent=2, sort_keys=True)
