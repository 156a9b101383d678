"""All maps in the order of a ranking: a dot with its interval per figure, floors hollow."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uncseg.estimators.registry import ORACLE
from uncseg.evaluation.figures import LOWER, figures_by_key
from uncseg.report.style import BLACK, BLUE, NAMES, ORANGE, save_figure

DOTS_PER_INCH = 120


def draw_rankings(path: Path, rankings: Mapping[str, pd.DataFrame], proposed: str | None) -> bool:
    """Write the PNG of :func:`ranking_figure`; return whether there was anything to draw."""
    figure = ranking_figure(rankings, proposed)
    if figure is not None:
        save_figure(figure, path, DOTS_PER_INCH)
    return figure is not None


def ranking_figure(rankings: Mapping[str, pd.DataFrame], proposed: str | None) -> Figure | None:
    """Draw one panel per figure, and in each the same maps, one per line, best by the first figure on top.

    Args:
        rankings: by figure, as :func:`~uncseg.studies.benchmark.ranking.ranking` returns them; methods that are not
            compared are left out.
        proposed: the method in a colour of its own.

    Returns:
        None if no method is ranked.
    """
    shown = {key: table.dropna(subset=["mean"]) for key, table in rankings.items()}
    shown = {key: table[table["compared"]] for key, table in shown.items() if table["compared"].any()}
    if not shown:
        return None
    first = next(iter(shown))
    better_low = figures_by_key()[first].better == LOWER
    order = list(shown[first].sort_values("mean", ascending=better_low)["method"])
    order = list(dict.fromkeys([*order, *(name for table in shown.values() for name in table["method"])]))
    figure = Figure(figsize=(3.4 + 3.1 * len(shown), 1.2 + 0.23 * len(order)), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, (key, table) in zip(panels, shown.items(), strict=True):
        _dots(axes, table.set_index("method"), order, proposed)
        one = figures_by_key()[key]
        axes.set_xlabel(f"{one.label}\n({one.better} is better)", fontsize=8)
    floors = {name for table in shown.values() for name in table.loc[table["floor"], "method"]}
    names = [f"{NAMES.get(name, name)}{' *' if name in floors else ''}" for name in order]
    panels[0].set_yticks(range(len(order)), names, fontsize=8)
    panels[0].set_ylim(len(order) - 0.5, -0.5)
    return figure


def _dots(axes: Axes, table: pd.DataFrame, order: list[str], proposed: str | None) -> None:
    for place, name in enumerate(order):
        if name not in table.index:
            continue
        row = table.loc[name]
        colour = BLACK if name == ORACLE else ORANGE if name == proposed else BLUE
        ends = [[row["mean"] - row["ci_low"]], [row["ci_high"] - row["mean"]]]
        axes.errorbar(
            [row["mean"]],
            [place],
            xerr=np.maximum(np.nan_to_num(np.asarray(ends, float)), 0),
            fmt="D" if name == ORACLE else "o",
            color=colour,
            markerfacecolor="white" if row["floor"] else colour,
            markersize=5,
            elinewidth=1.4,
            capsize=0,
        )
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
