"""Quality of uncertainty against its cost: one point per method with its name, and floors as lines."""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from uncseg.estimators.registry import ORACLE
from uncseg.evaluation.figures import figures_by_key, shown_in
from uncseg.report.style import BLACK, BLUE, NAMES, save_figure

DOTS_PER_INCH = 120
NAME, FLOOR_NAME = "name of a method", "name of a floor"
"""Kinds of texts in the figure, as matplotlib's gid."""
_NAME_SIZE = 7.5


def draw_benchmark(path: Path, wide: pd.DataFrame) -> bool:
    """Write the PNG of :func:`benchmark_figure`.

    Returns:
        Whether there was anything to draw.
    """
    figure = benchmark_figure(wide)
    if figure is not None:
        save_figure(figure, path, DOTS_PER_INCH)
    return figure is not None


def benchmark_figure(wide: pd.DataFrame) -> Figure | None:
    """Draw quality on the shared segmentation, union mask, against inference and training cost.

    One row of panels is about failures and, for phantoms, one about the oracle's P(failure). Points have 95 %
    intervals. Methods that are not compared, or whose cost is unknown, are left out.

    Args:
        wide: as ``wide_table`` returns it; with a column ``family``, a panel shows the best method of each family.

    Returns:
        None if no method has a figure and a cost.
    """
    costs = [key for key, figure in reversed(shown_in("cost").items()) if figure.unit]
    methods = wide[~wide["floor"] & (wide["method"] != ORACLE)].dropna(subset=costs)
    qualities = [f"shared_{key}" for key in shown_in("plot")]
    drawn = [quality for quality in qualities if methods[quality].notna().any()]
    if not drawn:
        return None
    figure = Figure(figsize=(14, 5.4 * len(drawn)), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(drawn), len(costs), squeeze=False)
    figure.subplots_adjust(left=0.06, right=0.9, wspace=0.45, hspace=0.22, top=0.95, bottom=0.09)
    for (quality, cost), axes in zip(product(drawn, costs), panels.ravel(), strict=True):
        known = methods.dropna(subset=[quality])
        if "family" in known:
            known = known.loc[known.groupby("family")[quality].idxmax()]
        lines = wide[(wide["floor"] | (wide["method"] == ORACLE)) & wide[quality].notna()]
        _limits(axes, known, lines, quality, cost)
        _lines(axes, lines, quality)
        _points(axes, known, quality, cost)
    return figure


def _limits(axes: Axes, methods: pd.DataFrame, lines: pd.DataFrame, quality: str, cost: str) -> None:
    low, high = float(methods[cost].min()), float(methods[cost].max())
    if cost == "inference_cost":
        axes.set_xscale("log")
        room = max(high / low, 2) ** 0.3
        axes.set_xlim(low / room, high * room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.3 * max(high - low, 1)
        axes.set_xlim(low - room, high + room)
    ends = pd.concat([methods[f"{quality}{end}"] for end in ("", "_low", "_high")]).dropna()
    extent = max(float(np.ptp(ends)), 0.05)
    # a distant line would squeeze all points together; its name stands at the edge instead
    near = lines[quality][lines[quality].between(ends.min() - extent, ends.max() + extent)]
    values = pd.concat([ends, near])
    margin = 0.08 * max(float(np.ptp(values)), 0.05)
    axes.set_ylim(values.min() - margin, values.max() + margin)
    axes.set_xlabel(figures_by_key()[cost].heading + (", log" if cost == "inference_cost" else ""))
    axes.set_ylabel(figures_by_key()[quality.removeprefix("shared_")].label)
    axes.grid(alpha=0.25)


def _lines(axes: Axes, lines: pd.DataFrame, quality: str) -> None:
    """Draw floors and the oracle as horizontal lines with their names beside the panel."""
    ordered = lines.sort_values(quality)
    styles = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)))
    values = ordered[quality].to_numpy(float)
    bottom, top = axes.get_ylim()
    heights = np.clip(values, bottom, top)
    pixels = axes.transData.transform(np.column_stack([np.ones(len(heights)), heights]))[:, 1]
    line_of_text = 1.5 * _NAME_SIZE * DOTS_PER_INCH / 72
    for number, (row, height, place) in enumerate(
        zip(ordered.to_dict("records"), heights, _apart(pixels, line_of_text), strict=True)
    ):
        oracle, value = row["method"] == ORACLE, float(row[quality])
        style: dict[str, Any] = {"linestyle": "-" if oracle else styles[number % len(styles)]}
        name = f"{NAMES.get(row['method'], row['method'])}{'' if oracle else ' *'}"
        if value == height:
            axes.axhline(height, color=BLACK if oracle else "0.4", linewidth=1.2, zorder=1, **style)
        else:
            name += f": {value:.2f} {'↓' if value < bottom else '↑'}"
        axes.annotate(
            name,
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(1.03, axes.transAxes.inverted().transform((0, place))[1]),
            textcoords="axes fraction",
            fontsize=_NAME_SIZE,
            color=BLACK if oracle else "0.3",
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
            gid=FLOOR_NAME,
        )


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Move ascending places (pixels) as little as needed, until each is at least a gap from the next."""
    groups = [[place] for place in places]
    # groups that touch are merged into one, centred on its members
    while True:
        middles = [float(np.mean(group)) for group in groups]
        touching = [
            a
            for a, b in pairwise(range(len(groups)))
            if middles[b] - middles[a] < gap * (len(groups[a]) + len(groups[b])) / 2
        ]
        if not touching:
            break
        first = touching[0]
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
    starts = [middle - gap * (len(group) - 1) / 2 for middle, group in zip(middles, groups, strict=True)]
    return np.array([start + gap * n for start, group in zip(starts, groups, strict=True) for n in range(len(group))])


def _points(axes: Axes, methods: pd.DataFrame, quality: str, cost: str) -> None:
    ordered = methods.sort_values([cost, quality], kind="stable")
    middles = ordered[quality].to_numpy(float)
    pixels = axes.transData.transform(np.column_stack([ordered[cost], middles]))
    x = ordered[cost].to_numpy(float)
    ends = np.array([(ordered[quality] - ordered[f"{quality}_low"]), (ordered[f"{quality}_high"] - ordered[quality])])
    ends = np.maximum(np.nan_to_num(ends), 0)
    style: dict[str, Any] = {"color": BLUE, "markeredgecolor": BLACK, "ecolor": "0.35", "elinewidth": 1}
    axes.errorbar(x, middles, yerr=ends, fmt="o", markersize=4.5, capsize=1.5, zorder=3, **style)
    tops = axes.transData.transform(np.column_stack([x, middles + ends[1]]))[:, 1]
    bottoms = axes.transData.transform(np.column_stack([x, middles - ends[0]]))[:, 1]
    bars = [Bbox([[px - 2, low], [px + 2, top]]) for px, low, top in zip(pixels[:, 0], bottoms, tops, strict=True)]
    _name_points(axes, [NAMES.get(name, name) for name in ordered["method"]], pixels, bars)


def _name_points(axes: Axes, names: Sequence[str], pixels: np.ndarray, bars: Sequence[Bbox]) -> None:
    """Write names beside points, at the nearest place that covers no other name, no point and, if possible, no bar."""
    scale = 72 / DOTS_PER_INCH
    renderer = FigureCanvasAgg(axes.figure).get_renderer()  # type: ignore[arg-type]
    panel = axes.get_window_extent(renderer)
    dots = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels]
    placed: list[Bbox] = []
    for number in sorted(range(len(names)), key=lambda n: -pixels[n][1]):
        x, y = pixels[number]
        text = axes.text(0, 0, names[number], fontsize=_NAME_SIZE)
        extent = text.get_window_extent(renderer)
        text.remove()
        size = np.array([extent.width, extent.height])
        box = _free_place((x, y), size, panel, [*placed, *dots], bars)
        placed.append(box)
        near = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
        if np.hypot(near[0] - x, near[1] - y) > 12:
            inverse = axes.transData.inverted()
            line = inverse.transform([(x, y), near])
            axes.plot(line[:, 0], line[:, 1], color="0.55", linewidth=0.6, zorder=2, scalex=False, scaley=False)
        axes.annotate(
            names[number],
            tuple(axes.transData.inverted().transform((x, y))),
            xytext=((box.x0 - x) * scale, (box.y0 + box.height / 2 - y) * scale),
            textcoords="offset points",
            fontsize=_NAME_SIZE,
            va="center",
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            zorder=4,
            gid=NAME,
        )


def _free_place(
    point: tuple[float, float], size: np.ndarray, panel: Bbox, taken: Sequence[Bbox], avoided: Sequence[Bbox]
) -> Bbox:
    """Return a box near a point, inside the panel, that overlaps nothing taken and, if possible, nothing avoided."""
    (x, y), (width, height) = point, size
    boxes = []
    for up, away in product(np.arange(-24, 25) * height / 2, (8, 30, 60, 100, 150, 210)):
        for left in (x + away, x - away - width):
            box = Bbox.from_bounds(left, y + up - height / 2, width, height)
            if panel.x0 + 3 < box.x0 and box.x1 < panel.x1 - 3 and panel.y0 + 3 < box.y0 and box.y1 < panel.y1 - 3:
                boxes.append((np.hypot(away, 1.5 * up), box))
    boxes.sort(key=lambda pair: pair[0])
    for obstacles in ([*taken, *avoided], taken):
        for _, box in boxes:
            if not any(box.padded(1).overlaps(other) for other in obstacles):
                return box
    return boxes[0][1] if boxes else Bbox.from_bounds(x + 8, y - height / 2, width, height)
