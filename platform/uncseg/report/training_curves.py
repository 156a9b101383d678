"""Figure 2: metrics over epochs of a run or of several; folds are thin lines, their mean is a thick one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uncseg.config.training_sections import PROTOCOLS
from uncseg.estimators.registry import FLOORS, HEAD
from uncseg.evaluation.figures import KINDS, best_floor
from uncseg.metric_keys import epoch_key
from uncseg.report.style import BLACK, BLUE, CURVE_STYLES, NAMES, ORANGE, region_styles, save_figure
from uncseg.tasks.task import Task

Style = dict[str, Any]

ESTIMATOR_STYLES: dict[str, Style] = {
    HEAD: {"color": BLUE, "linestyle": "-", "marker": "o"},
    "variance_stable": {"color": ORANGE, "linestyle": "--", "marker": "s"},
}
FLOOR_STYLE: Style = {"color": BLACK, "linestyle": ":", "marker": "^"}
MOST_IN_A_COLUMN = 6
"""Entries of a legend."""
MEAN_STYLE: Style = {"color": BLACK, "linestyle": ":", "marker": "D"}


@dataclass(frozen=True)
class TrainedEpochs:
    """The epochs of a run so far."""

    name: str
    epochs: pd.DataFrame
    """One row per fold and epoch: fold, epoch and metrics."""
    last_epochs: int
    """Number of epochs at the end that Table 2 averages."""


def draw_training(path: Path, run: TrainedEpochs, task: Task) -> None:
    """Draw a run in six panels: loss, Dice of validation patches, and per protocol correlation and RMSD.

    Correlation and RMSD are with the error memory. The floor shown is the best one over the last epochs.
    """
    figure, panels = _panels()
    _curves(panels[0], run.epochs, "train/loss", {"color": BLUE, "marker": "o"}, "total")
    _curves(panels[0], run.epochs, "train/loss_seg", {"color": ORANGE, "linestyle": "--", "marker": "s"}, "seg.")
    panels[0].set(title="training loss")
    _curves(panels[1], run.epochs, "val_patch/dice_mean", MEAN_STYLE, "mean")
    for region, style in region_styles(task.regions).items():
        _curves(panels[1], run.epochs, f"val_patch/dice_{task.region_keys[region]}", style, region)
    panels[1].set(title="Dice of validation patches", ylim=(0, 1))
    for row, kind in enumerate(KINDS, start=1):
        for axes, protocol in zip(panels[2 * row : 2 * row + 2], PROTOCOLS, strict=True):
            _estimators(axes, run, protocol, kind)
    _finish(panels, [run])
    save_figure(figure, path, 130)


def draw_trainings(path: Path, runs: Sequence[TrainedEpochs]) -> None:
    """Draw the same panels for several runs, each in its colour; the head is the only estimator shown."""
    figure, panels = _panels()
    columns = {"training loss": "train/loss", "mean Dice of validation patches": "val_patch/dice_mean"}
    for kind, name in KINDS.items():
        columns |= {f"{name} of the head, {p} mask": epoch_key(p, kind, HEAD) for p in PROTOCOLS}
    for axes, (title, column) in zip(panels, columns.items(), strict=True):
        for run, style in zip(runs, cycle(CURVE_STYLES), strict=False):
            _curves(axes, run.epochs, column, style, run.name)
        axes.set(title=title)
    panels[1].set(ylim=(0, 1))
    _finish(panels, runs)
    save_figure(figure, path, 130)


def floor_of_last_epochs(run: TrainedEpochs, protocol: str, kind: str) -> str | None:
    """Return the best floor over the last epochs; None if there is none."""
    last = run.epochs[run.epochs["epoch"] >= first_of_window(run)]
    columns = {name: epoch_key(protocol, kind, name) for name in FLOORS}
    means = {name: float(last[column].mean()) for name, column in columns.items() if column in last}
    return best_floor(means, f"{kind}_ema_last", constant=False)


def first_of_window(run: TrainedEpochs) -> int:
    """Return the first epoch that Table 2 averages."""
    return max(0, int(run.epochs["epoch"].max()) + 1 - run.last_epochs) if len(run.epochs) else 0


def _estimators(axes: Axes, run: TrainedEpochs, protocol: str, kind: str) -> None:
    for name, style in ESTIMATOR_STYLES.items():
        _curves(axes, run.epochs, epoch_key(protocol, kind, name), style, NAMES.get(name, name))
    if floor := floor_of_last_epochs(run, protocol, kind):
        label = f"best floor ({NAMES.get(floor, floor)})"
        _curves(axes, run.epochs, epoch_key(protocol, kind, floor), FLOOR_STYLE, label)
    axes.set(title=f"{KINDS[kind]} with the error memory, {protocol} mask")


def _panels() -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(11, 9.3), layout="constrained")
    return figure, list(figure.subplots(3, 2, sharex=True).flat)


def _curves(axes: Axes, epochs: pd.DataFrame, column: str, style: Style, label: str) -> None:
    if column not in epochs.columns or not epochs[column].notna().any():
        return
    for _, fold in epochs.groupby("fold"):
        axes.plot(fold["epoch"] + 1, fold[column], color=style["color"], linewidth=0.7, alpha=0.4)
    mean = epochs.groupby("epoch")[column].mean()
    every = max(1, len(mean) // 8)
    axes.plot(mean.index + 1, mean, **style, linewidth=2.2, markersize=5, markevery=every, label=label)


def _finish(panels: Sequence[Axes], runs: Sequence[TrainedEpochs]) -> None:
    for axes in panels:
        for start, end, text in _windows(runs):
            axes.axvspan(start, end, color="0.9", zorder=0, linewidth=0)
            if axes is panels[0]:
                axes.text(end, 1.0, text, transform=axes.get_xaxis_transform(), ha="right", va="top", fontsize=8)
        axes.grid(alpha=0.25)
        axes.set_title(axes.get_title(), fontsize=11)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if shown := len(axes.get_legend_handles_labels()[0]):
            axes.legend(fontsize=8.5, framealpha=0.85, ncols=1 if shown <= MOST_IN_A_COLUMN else 2)
        else:
            axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color="0.4")
    for axes in panels[-2:]:
        axes.set_xlabel("epochs trained (thin: each fold, thick: their mean)")


def _windows(runs: Sequence[TrainedEpochs]) -> list[tuple[float, float, str]]:
    """The stretches of epochs to shade, without repetition: their two ends and their meaning."""
    windows = [(first_of_window(run), int(run.epochs["epoch"].max()) + 1) for run in runs if len(run.epochs)]
    return [(a + 0.5, b + 0.5, f"last {b - a} epochs,\naveraged in Table 2") for a, b in dict.fromkeys(windows)]
