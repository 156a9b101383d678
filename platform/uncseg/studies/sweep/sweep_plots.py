"""The figures of a sweep: its trials in the plane of two objectives, and each trial's objective over its epochs."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from uncseg.report.style import save_figure
from uncseg.studies.sweep.sweep_file import Sweep

FRONT, OTHER, BOUND = "#0072b2", "#999999", "#d55e00"  # distinct for colour-blind readers, and in grey


def draw_sweep(folder: Path, table: pd.DataFrame, reported: pd.DataFrame, sweep: Sweep) -> None:
    """Write pareto.png (where there are two objectives, or one and a constraint) and objective.png.

    ``table`` has one row per trial (``rank_trials``), ``reported`` one per trial and epoch (``reported_table``).
    """
    if len(sweep.metrics) > 1:
        save_figure(_between_objectives(table, sweep), folder / "pareto.png")
    if len(reported):
        save_figure(_over_epochs(table, reported, sweep), folder / "objective.png")


def _between_objectives(table: pd.DataFrame, sweep: Sweep) -> Figure:
    figure = Figure(figsize=(6, 4.5))
    axes = figure.add_subplot()
    x, y = sweep.metrics[:2]
    finished = table["state"] == "finished"
    best = table.get("front", table.index == 0)
    for rows, name, marker in ((table[~finished], "ended early", "x"), (table[finished & ~best], "finished", "o")):
        axes.scatter(rows[x], rows[y], color=OTHER, marker=marker, label=f"{name} ({len(rows)})")
    front = table[finished & best].sort_values(x)
    name = f"Pareto front ({len(front)})" if len(sweep.objectives) > 1 else "best"
    # between two trials the front is drawn at the worse value, since no trial shows a better one
    steps = "steps-post" if sweep.objectives[0].mode == "min" else "steps-pre"
    axes.plot(front[x], front[y], color=FRONT, marker="D", drawstyle=steps, linewidth=1, label=name)
    for axis_line, metric in ((axes.axvline, x), (axes.axhline, y)):
        for constraint in sweep.constraints:
            if constraint.metric == metric:
                axis_line(constraint.bound(), color=BOUND, linestyle="--", label=f"at least {constraint.bound():.4f}")
    for _, row in front.iterrows():
        axes.annotate(row["trial"].rpartition("_")[2], (row[x], row[y]), textcoords="offset points", xytext=(4, 4))
    axes.set(xlabel=f"{x}, mean over folds", ylabel=y)
    axes.legend(fontsize="small")
    return figure


def _over_epochs(table: pd.DataFrame, reported: pd.DataFrame, sweep: Sweep) -> Figure:
    """Draw the objective that the scheduler compared; the best trial in colour."""
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    metric, best = sweep.scheduled.metric, table["trial"].iloc[0]
    known = reported[reported[metric] != sweep.scheduled.worst]  # an epoch in which a fold has no value
    for trial, rows in known.groupby("trial"):
        chosen: dict[str, Any] = {"color": FRONT, "linewidth": 2, "zorder": 3}
        style = chosen if trial == best else {"color": OTHER, "linewidth": 0.8}
        axes.plot(rows["epoch"], rows[metric], marker="o", markevery=[-1], markersize=4, **style)
    axes.set(xlabel="epochs trained", ylabel=f"{metric}, mean over folds")
    axes.set_title(f"{reported['trial'].nunique()} trials; in colour the best, {best}", fontsize="medium")
    return figure
