"""Scores as files and as tables for a terminal."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from uncseg.evaluation.calibration import BINS
from uncseg.evaluation.summary import summarize
from uncseg.report.style import REGION_STYLES, save_figure
from uncseg.table_files import write_table

SHOWN = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "lesionwise_dice": "lesion-wise Dice",
    "lesionwise_hd95_mm": "lesion-wise HD95 (mm)",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "failure_rate": "failure rate: outside the predicted WT",
    "rmsd_failure_union": "RMSD with the failure, union mask",
    "corr_failure_reference": "correlation with the failure, reference mask",
    "corr_failure_union": "correlation with the failure, union mask",
    "qu_score": "QU-BraTS",
    "qu_score_always_certain": "QU-BraTS of an always certain map *",
    "auroc_band": "AUROC of errors, band",
    "auprc_band": "AUPRC of errors, band",
    "fpr95_band": "FPR at 95 % TPR, band",
    "ece": "ECE",
    "ace": "ACE",
    "aurc": "AURC of cases",
    "e_aurc": "E-AURC of cases",
    "spearman_uncertainty_dice": "Spearman, mean uncertainty and Dice",
}

MAP_HEADS = {"corr_failure_union": "corr\nunion", "auroc_band": "AUROC\nband"}
"""Of the figures of maps, where there is little room."""


def write_scores(scores: pd.DataFrame, folder: Path, name: str) -> pd.DataFrame:
    """Write NAME (a row for each case and region), NAME_summary and, of a map, NAME_reliability with its diagram.

    Args:
        scores: rows of :func:`~uncseg.evaluation.case_scores.score_case` with case and patient.
        folder: for NAME.parquet, NAME.csv and the rest.
        name: first part of each file's name.

    Returns:
        The summary, as :func:`~uncseg.evaluation.summary.summarize` gives it.
    """
    if "reliability" in scores.columns:
        if scores["reliability"].notna().any():
            diagram = _reliability(scores)
            write_table(diagram, folder, f"{name}_reliability")
            draw_reliability(folder / f"{name}_reliability.png", diagram)
        scores = scores.drop(columns="reliability")
    summary = summarize(scores)
    write_table(scores, folder, name)
    write_table(summary, folder, f"{name}_summary")
    return summary


def _reliability(scores: pd.DataFrame) -> pd.DataFrame:
    """The diagram's bins over all cases: region, lower, upper, voxels, mean_uncertainty, error_rate."""
    parts = []
    for region, counts in scores.dropna(subset=["reliability"]).groupby("region", sort=False)["reliability"]:
        voxels, uncertainty, wrong = np.sum([np.array(c) for c in counts], axis=0).T
        filled = np.maximum(voxels, 1)
        means = np.where(voxels > 0, uncertainty / filled, math.nan), np.where(voxels > 0, wrong / filled, math.nan)
        edges = np.linspace(0, 1, BINS + 1)
        columns = {"lower": edges[:-1], "upper": edges[1:], "voxels": voxels.astype(np.int64)}
        parts.append(pd.DataFrame({"region": region, **columns, "mean_uncertainty": means[0], "error_rate": means[1]}))
    return pd.concat(parts, ignore_index=True)


def draw_reliability(path: Path, diagram: pd.DataFrame) -> None:
    """Share of wrong voxels against the mean uncertainty of each bin, a line a region; the diagonal is right."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as it should be")
    for region, bins in diagram.groupby("region", sort=False):
        style = REGION_STYLES.get(str(region), {})
        axes.plot(bins["mean_uncertainty"], bins["error_rate"], **style, markersize=4, label=str(region))
    axes.set(xlabel="mean uncertainty of the bin", ylabel="share of wrong voxels", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    save_figure(figure, path)


def show_summary(summary: pd.DataFrame, cases: int) -> Table:
    """The main figures for a terminal, a column a region."""
    regions = list(dict.fromkeys(summary["region"]))
    shown = Table(
        title=f"Scores of {cases} case{'s' * (cases != 1)}",
        caption="mean over cases [95 % interval of 10 patients or more, resampled]. Empty on both sides: Dice 1, HD95 "
        "0; on one: 0 and 374 mm. * floor: needs no model. One map for all regions is judged as theirs.",
    )
    shown.add_column("")
    for region in regions:
        shown.add_column(region, justify="right")
    by_name = summary.set_index(["figure", "region"])
    for figure, name in SHOWN.items():
        if figure in by_name.index.get_level_values(0):
            cells = [
                interval(by_name.loc[(figure, region)], 4) for region in regions if (figure, region) in by_name.index
            ]
            shown.add_row(name, *cells)
    return shown


def summarize_models(scores: pd.DataFrame) -> pd.DataFrame:
    """:func:`~uncseg.evaluation.summary.summarize` of each model's rows, with ``model`` in front."""
    parts = []
    for model, rows in scores.groupby("model", sort=False):
        summary = summarize(rows)
        summary.insert(0, "model", model)
        parts.append(summary)
    return pd.concat(parts, ignore_index=True)


def show_models(summary: pd.DataFrame) -> Table:
    """Dice and HD95 of each fold, of all together and of each estimator, and what its map is worth, for a terminal."""
    shown = Table(
        title="Each fold, all averaged, and each estimator",
        caption="mean over cases; maps: of WT, inside the dilated prediction",
    )
    of_maps = [name for name in MAP_HEADS if name in set(summary["figure"])]
    regions = list(dict.fromkeys(summary["region"]))
    shown.add_column("model")
    for figure in ("dice", "hd95_mm"):
        for region in regions:
            shown.add_column(f"{SHOWN[figure]}\n{region}", justify="right")
    for figure in of_maps:
        shown.add_column(MAP_HEADS[figure], justify="right")
    for model, rows in summary.groupby("model", sort=False):
        means = rows.set_index(["figure", "region"])["mean"]
        cells = [f"{means[figure, region]:.4f}" for figure in ("dice", "hd95_mm") for region in regions]
        maps = [means.get((figure, "WT"), math.nan) for figure in of_maps]
        shown.add_row(str(model), *cells, *("–" if math.isnan(mean) else f"{mean:.3f}" for mean in maps))
    return shown


def show_comparison(table: pd.DataFrame, a: str, b: str) -> Table:
    """Paired differences for a terminal."""
    shown = Table(
        title=f"B − A: {b} − {a}",
        caption="paired by case; 95 % interval over patients; p: Wilcoxon's signed-rank test of patients, two-sided, "
        "not corrected for the number of figures.",
    )
    for column in ("region", "figure", "cases", f"A: {a}", f"B: {b}", "difference [95 %]", "p"):
        shown.add_column(column, justify="left" if column in ("region", "figure") else "right", overflow="fold")
    for row in table.to_dict("records"):
        if row["figure"] in SHOWN and row["cases"]:
            interval = f"{row['difference']:+.4f}"
            if not math.isnan(row["ci_low"]):
                interval += f" [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"
            means = (f"{row['mean_a']:.4f}", f"{row['mean_b']:.4f}")
            figures = (str(row["cases"]), *means, interval, f"{row['p_value']:.3g}")
            shown.add_row(row["region"], SHOWN[row["figure"]], *figures)
    return shown


def interval(row: pd.Series, digits: int) -> str:
    """A figure of the summary with its interval, where there is one."""
    if math.isnan(row["mean"]):
        return "too few"
    mean, low, high = (f"{row[name]:.{digits}f}" for name in ("mean", "ci_low", "ci_high"))
    return mean if math.isnan(row["ci_low"]) else f"{mean} [{low}, {high}]"
