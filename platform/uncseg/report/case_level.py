"""Figures of all cases of a run: risk against coverage, and Dice per fold."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uncseg.evaluation.figures import region_dices
from uncseg.evaluation.summary import risk_coverage, risk_curve
from uncseg.report.style import region_styles, save_figure
from uncseg.tasks.task import Task

COLUMNS = 4
"""Panels in a row."""
PANEL_INCHES = (11 / 3, 3.6)


def draw_risk_coverage(path: Path, scores: pd.DataFrame, task: Task) -> None:
    """Draw the risk (1 − mean Dice) of the most certain cases against their share, with one panel per region.

    Cases are ordered by their mean uncertainty; the best possible order and a random one are drawn for comparison.
    ``scores`` has one row per case and region, with the columns region, dice and mean_uncertainty.
    """
    known = scores.dropna(subset=["dice", "mean_uncertainty"])
    figure, panels = _panels(len(task.regions), "risk: 1 − mean Dice")
    for axes, (region, style) in zip(panels, region_styles(task.regions).items(), strict=True):
        rows = known[known["region"] == region]
        u, risk = rows["mean_uncertainty"].to_numpy(float), 1 - rows["dice"].to_numpy(float)
        axes.set_title(f"{region}, {len(rows)} cases", fontsize=11)
        axes.set_xlabel("share of cases kept, most certain first")
        axes.grid(alpha=0.25)
        if len(rows):
            share = np.arange(1, len(rows) + 1) / len(rows)
            aurc, excess = risk_coverage(u, risk)
            axes.axhline(risk.mean(), color="0.45", linestyle=":", label=f"random order ({risk.mean():.3f})")
            every = max(1, len(rows) // 10)
            label = f"mean uncertainty: AURC {aurc:.3f}"
            axes.plot(share, risk_curve(u, risk), **style, linewidth=2, markersize=4, markevery=every, label=label)
            label = f"best order: {aurc - excess:.3f}"
            axes.plot(share, risk_curve(risk, risk), color="black", linewidth=1, linestyle=(0, (5, 2)), label=label)
            axes.legend(fontsize=8.5)
    panels[0].set_ylim(bottom=0)
    save_figure(figure, path)


def draw_folds(path: Path, per_case: pd.DataFrame, task: Task) -> None:
    """Draw the Dice of each region per fold: each case, one row of ``per_case``, as a point over box plots."""
    folds = sorted(per_case["fold"].unique())
    figure, panels = _panels(len(task.regions), "Dice, out of fold")
    for axes, (region, style), column in zip(
        panels, region_styles(task.regions).items(), region_dices(task), strict=True
    ):
        values = [per_case.loc[per_case["fold"] == fold, column].to_numpy(float) for fold in folds]
        median = {"color": "black", "linewidth": 1.6}
        axes.boxplot(values, widths=0.55, showfliers=False, medianprops=median, boxprops={"color": "0.4"})
        size = 16 if len(per_case) < 200 else 5
        for place, of_fold in enumerate(values, start=1):
            # points are spread in the order of the table, so the picture is the same every time
            x = place + np.linspace(-0.18, 0.18, len(of_fold)) if len(of_fold) > 1 else [place]
            axes.scatter(x, of_fold, s=size, color=style["color"], marker=style["marker"], alpha=0.7, zorder=3)
        axes.set_xticks(range(1, len(folds) + 1), [str(fold) for fold in folds])
        axes.set_title(region, fontsize=11)
        axes.set_xlabel("fold")
        axes.grid(alpha=0.25, axis="y")
    save_figure(figure, path)


def _panels(count: int, vertical: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with this many panels, and the panels, which share the vertical axis."""
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for first in grid[:, 0]:
        first.set_ylabel(vertical)
    for unused in grid.flat[count:]:
        unused.remove()
    return figure, list(grid.flat[:count])
