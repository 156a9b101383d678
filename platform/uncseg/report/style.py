"""How pictures look: colours that everybody can tell apart, also in grey, and how a figure is written."""

from collections.abc import Collection, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from uncseg.estimators.registry import CALIBRATED, CROSS_FITTED, HEAD
from uncseg.evaluation.overlap import main_mask
from uncseg.files import whole_file
from uncseg.tasks.task import Task

# by Okabe and Ito; each has a lightness of its own
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
VERMILION, BLACK = "#d55e00", "#000000"
SKY, YELLOW = "#56b4e9", "#f0e442"
FILLS = (VERMILION, SKY, YELLOW, GREEN, PURPLE, BLUE, ORANGE)
"""Colours of labels, in their order; more labels take them again, lighter."""
CURVE_STYLES: list[dict[str, Any]] = [
    {"color": colour, "linestyle": line, "marker": marker}
    for colour, line, marker in (
        *((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D")),
        *((ORANGE, "-", "v"), (SKY, "--", "P"), ("#882255", "-.", "X"), ("#666633", ":", "*")),
    )
]
"""Of regions, or of runs, in their order."""
MAP_COLOURS = "inferno"
"""Perceptually uniform; the lightness rises with the value."""
FAINTEST = 0.02
"""Lower values of a map are not drawn."""
NAMES = {
    HEAD: "uncertainty head",
    CROSS_FITTED: "cross-fitted failures",
    CALIBRATED: "calibrated p",
    "min_p": "min(p, 1 − p)",
    "var1shot": "4p(1 − p)",
    "one_minus_p": "1 − p",
    "one_minus_max": "1 − max p",
    "border_distance": "distance",
}


def save_figure(figure: Figure, path: Path, dots_per_inch: int = 120) -> None:
    """Write a PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dots_per_inch, bbox_inches="tight", format="png")


def is_whole_picture(file: Path) -> bool:
    """Return whether a PNG is complete, and each part of it has its checksum."""
    try:
        with Image.open(file) as picture:
            picture.verify()
            return picture.format == "PNG"
    except (OSError, SyntaxError, ValueError, EOFError):
        return False


def label_colours(task: Task) -> dict[str, str]:
    """Return the colour of each label of a task, in the order of their numbers."""
    return {
        label: FILLS[place] if place < len(FILLS) else _lighter(FILLS[place % len(FILLS)], place // len(FILLS))
        for place, label in enumerate(task.labels)
    }


def _lighter(colour: str, times: int) -> str:
    """Return a colour that is mixed with white once or several times."""
    red, green, blue = (1 - (1 - part) * 0.55**times for part in to_rgb(colour))
    return to_hex((red, green, blue))


def region_styles(regions: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the style of each region's curve, by the order of the regions."""
    return dict(zip(regions, cycle(CURVE_STYLES), strict=False))


def label_patches(task: Task) -> list[Patch]:
    """Return the labels' colours for a legend."""
    return [Patch(color=colour, label=label) for label, colour in label_colours(task).items()]


def legend_columns(names: Collection[str], width_inches: float) -> int:
    """Return how many columns of a legend with these names fit into a width."""
    widest = 0.6 + 0.1 * max(map(len, names))
    return max(1, min(len(names), int(width_inches / widest)))


def draw_labels(axes: Axes, labels: np.ndarray, task: Task, aspect: float = 1) -> None:
    """Draw the labels of a slice (H, W) over its image."""
    colours = list(label_colours(task).values())
    norm = BoundaryNorm(np.arange(len(colours) + 1) + 0.5, len(colours))
    shown = np.ma.masked_equal(labels, 0)
    look: dict[str, Any] = {"cmap": ListedColormap(colours), "norm": norm, "alpha": 0.75}
    axes.imshow(shown, **look, interpolation="nearest", aspect=aspect)


def as_grey(image: np.ndarray) -> np.ndarray:
    """Scale an image to [0, 1], where all voxels that are not 0 lie but the outermost half percent on either side."""
    inside = image[image != 0]
    low, high = np.percentile(inside if inside.size else image, (0.5, 99.5))
    grey: np.ndarray = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return grey


def fullest_slice(segmentations: Sequence[np.ndarray], task: Task) -> int:
    """Return the axial slice to show of labels (D, H, W), of which there is one volume at least.

    It has most of the main region in the first segmentation that has any; without any, most of all labels; without
    labels it is the middle one.
    """
    masks = (
        mask for shown in (main_mask, _all_labels) for labels in segmentations if (mask := shown(labels, task)).any()
    )
    fullest = next(masks, None)
    return len(segmentations[0]) // 2 if fullest is None else int(fullest.sum((1, 2)).argmax())


def _all_labels(labels: np.ndarray, _task: Task) -> np.ndarray:
    return labels > 0
