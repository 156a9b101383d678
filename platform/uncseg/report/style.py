"""How pictures look: colours that everybody can tell apart, also in grey, and how a figure is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from uncseg.dataset.labels import REGIONS
from uncseg.estimators.registry import HEAD
from uncseg.files import whole_file

# by Okabe and Ito; each has a lightness of its own
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
VERMILION, BLACK = "#d55e00", "#000000"
LABEL_COLOURS = {"NCR": "#d55e00", "ED": "#56b4e9", "ET": "#f0e442"}
CURVE_STYLES: list[dict[str, Any]] = [
    {"color": colour, "linestyle": line, "marker": marker}
    for colour, line, marker in ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"), (PURPLE, ":", "D"))
]
REGION_STYLES = dict(zip(REGIONS, CURVE_STYLES, strict=False))
MAP_COLOURS = "inferno"
"""Perceptually uniform; the lightness rises with the value."""
FAINTEST = 0.02
"""Lower values of a map are not drawn."""
NAMES = {HEAD: "uncertainty head", "one_minus_p": "1 − p", "one_minus_max": "1 − max p", "border_distance": "distance"}


def save_figure(figure: Figure, path: Path, dots_per_inch: int = 120) -> None:
    """Write a PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dots_per_inch, bbox_inches="tight", format="png")


def label_patches() -> list[Patch]:
    """Return the labels' colours for a legend."""
    return [Patch(color=colour, label=label) for label, colour in LABEL_COLOURS.items()]


def draw_labels(axes: Axes, labels: np.ndarray, aspect: float = 1) -> None:
    """Draw the labels of a slice (H, W) over its image."""
    colours, norm = ListedColormap(list(LABEL_COLOURS.values())), BoundaryNorm([0.5, 1.5, 2.5, 3.5], 3)
    shown = np.ma.masked_equal(labels, 0)
    axes.imshow(shown, cmap=colours, norm=norm, alpha=0.75, interpolation="nearest", aspect=aspect)


def as_grey(image: np.ndarray) -> np.ndarray:
    """Scale an image to [0, 1], where all voxels that are not 0 lie but the outermost half percent on either side."""
    inside = image[image != 0]
    low, high = np.percentile(inside if inside.size else image, (0.5, 99.5))
    grey: np.ndarray = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return grey


def first_with_tumour(segmentations: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the first segmentation that has any tumour; the very first where none has."""
    return next((labels for labels in segmentations.values() if labels.any()), next(iter(segmentations.values())))


def most_tumour(labels: np.ndarray) -> int:
    """Return the axial slice of (D, H, W) labels with most tumour; the middle slice where there is none."""
    return int((labels > 0).sum((1, 2)).argmax()) if labels.any() else len(labels) // 2
