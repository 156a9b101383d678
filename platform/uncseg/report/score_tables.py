"""Scores of cases as files, and as tables for people."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from uncseg.evaluation.calibration import BINS
from uncseg.evaluation.figures import shown_in
from uncseg.evaluation.summary import summarize
from uncseg.page_table import UNKNOWN, PageTable, Row, fixed, with_interval
from uncseg.report.style import region_styles, save_figure
from uncseg.table_files import write_table
from uncseg.tasks.task import Task

MOST_WITH_INTERVALS = 3
"""Regions whose means fit into a terminal with their intervals."""
MOST_WITH_HD95 = 3
"""Regions whose Dice and HD95 fit into a terminal."""


def score_files(name: str) -> list[str]:
    """Return the names of the files that :func:`write_scores` may write."""
    tables = (name, f"{name}_summary", f"{name}_reliability")
    return [f"{table}.{ending}" for table in tables for ending in ("parquet", "csv")] + [f"{name}_reliability.png"]


def write_scores(scores: pd.DataFrame, folder: Path, name: str) -> pd.DataFrame:
    """Write NAME (one row per case and region), NAME_summary and, if there is a map, NAME_reliability with its diagram.

    ``scores`` has the rows of :func:`~uncseg.evaluation.case_scores.score_case` with case and patient. Returns the
    summary that :func:`~uncseg.evaluation.summary.summarize` gives.
    """
    if "reliability" in scores.columns:
        if scores["reliability"].notna().any():
            diagram = _reliability(scores)
            write_table(diagram, folder, f"{name}_reliability")
            draw_reliability(folder / f"{name}_reliability.png", diagram, list(dict.fromkeys(scores["region"])))
        scores = scores.drop(columns="reliability")
    summary = summarize(scores)
    write_table(scores, folder, name)
    write_table(summary, folder, f"{name}_summary")
    return summary


def _reliability(scores: pd.DataFrame) -> pd.DataFrame:
    """Bins of the diagram over all cases: region, lower, upper, voxels, mean_uncertainty, error_rate."""
    parts = []
    for region, counts in scores.dropna(subset=["reliability"]).groupby("region", sort=False)["reliability"]:
        voxels, uncertainty, wrong = np.sum([np.array(c) for c in counts], axis=0).T
        filled = np.where(voxels > 0, voxels, math.nan)
        edges = np.linspace(0, 1, BINS + 1)
        columns = {"lower": edges[:-1], "upper": edges[1:], "voxels": voxels.astype(np.int64)}
        means = {"mean_uncertainty": uncertainty / filled, "error_rate": wrong / filled}
        parts.append(pd.DataFrame({"region": region, **columns, **means}))
    return pd.concat(parts, ignore_index=True)


def draw_reliability(path: Path, diagram: pd.DataFrame, regions: Sequence[str]) -> None:
    """Draw the share of wrong voxels against the mean uncertainty of each bin, with one line per region.

    ``regions`` are all regions of the scores, by whose order the lines are drawn, also where some have no line.
    """
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="well calibrated")
    styles = region_styles(regions)
    for region, bins in diagram.groupby("region", sort=False):
        style = styles[str(region)]
        axes.plot(bins["mean_uncertainty"], bins["error_rate"], **style, markersize=4, label=str(region))
    axes.set(xlabel="mean uncertainty of the bin", ylabel="share of wrong voxels", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    save_figure(figure, path)


def scores_table(summary: pd.DataFrame, title: str = "Scores out of fold", chosen: Sequence[str] = ()) -> PageTable:
    """Return the main figures of :func:`~uncseg.evaluation.summary.summarize`, with one column per region.

    ``chosen`` are the maps that were scored, in words; see :func:`~uncseg.evaluation.expectation.maps_of`.
    """
    regions = list(dict.fromkeys(summary["region"]))
    known = {(row["figure"], row["region"]): row for row in summary.to_dict("records")}
    rows = []
    for key, figure in shown_in("scores").items():
        if (key, regions[0]) in known:
            rows.append(Row([figure.heading, *(_score(known[key, region]) for region in regions)], figure.row_kind))
    note = (
        "Mean over cases [95 % interval, patients resampled; needs 10 patients]. A region that both sides lack has "
        "Dice 1 and HD95 0 mm; one that a single side lacks has 0 and 374 mm. * floor: needs no model. A single map "
        "is compared with the errors of the main region and of those within it."
    )
    note += f" The map is {' or '.join(chosen)}." if chosen else ""
    intervals = len(regions) <= MOST_WITH_INTERVALS
    return PageTable("scores", title, ["", *regions], rows, note, terminal_intervals=intervals)


def _score(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["mean"]):
        return "too few" if row["cases"] else UNKNOWN
    return with_interval(row["mean"], row["ci_low"], row["ci_high"], 3)


def summarize_models(scores: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`~uncseg.evaluation.summary.summarize` of each model's rows, with ``model`` as the first column."""
    parts = {model: summarize(rows) for model, rows in scores.groupby("model", sort=False)}
    return pd.concat(parts, names=["model"]).reset_index("model").reset_index(drop=True)


def models_table(summary: pd.DataFrame, task: Task) -> PageTable:
    """Return :func:`summarize_models` as a table: each model's Dice and HD95, and the scores of its maps.

    A terminal shows the HD95 of few regions only.
    """
    dices = shown_in("models")
    maps = {key: figure for key, figure in shown_in("model_maps").items() if key in set(summary["figure"])}
    regions, main = list(dict.fromkeys(summary["region"])), task.main_region
    heads = {f"{figure.heading} {r}": f"{figure.heading}\n{r}" for figure in dices.values() for r in regions}
    few = heads if len(regions) <= MOST_WITH_HD95 else dict([*heads.items()][: len(regions)])
    of_maps = {figure.heading: figure.short for figure in maps.values()}
    rows = []
    for model, figures in summary.groupby("model", sort=False):
        means = figures.set_index(["figure", "region"])["mean"]
        cells = [fixed(means[key, region], 4) for key in dices for region in regions]
        rows.append(Row([str(model), *cells, *(fixed(means.get((key, main), math.nan), 3) for key in maps)]))
    title = "Each fold, the average of all folds, and each estimator"
    note = f"Mean over cases. Maps are those of {main}, inside the dilated prediction."
    terminal = {"model": "model", **few, **of_maps}
    return PageTable("models", title, ["model", *heads, *of_maps], rows, note, terminal=terminal)


def differences_table(differences: pd.DataFrame, a: str, b: str) -> PageTable:
    """Return the differences B − A of :func:`~uncseg.evaluation.summary.compare` in the main figures, per region."""
    rows = []
    figures = shown_in("scores")
    shown = differences[differences["figure"].isin(list(figures)) & (differences["cases"] > 0)]
    for region, of_region in shown.groupby("region", sort=False):
        rows.append(Row([str(region)], "part"))
        for row in of_region.to_dict("records"):
            figure = figures[row["figure"]]
            means = [fixed(row["mean_a"], 4), fixed(row["mean_b"], 4)]
            difference = with_interval(row["difference"], row["ci_low"], row["ci_high"], 4, signed=True)
            p = "< 0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.2g}"
            rows.append(Row([figure.heading, str(row["cases"]), *means, difference, p], figure.row_kind))
    note = (
        "Paired by case: mean [95 % interval, patients resampled], and p of Wilcoxon's signed-rank test of patients, "
        "two-sided, not corrected for the number of figures. * floor: needs no model."
    )
    header = ["figure", "cases", a, b, "difference [95 %]", "p"]
    return PageTable(f"differences_{b}", f"Paired differences: {b} − {a}", header, rows, note)
