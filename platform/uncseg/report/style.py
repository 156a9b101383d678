"""How pictures look: colours that every kind of eyes tells apart, also in grey, and how a figure becomes a file."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from uncseg.estimators.registry import HEAD
from uncseg.files import whole_file

# of Okabe and Ito, each with a lightness of its own
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#000000",
)
LABEL_COLOURS = {"NCR": "#d55e00", "ED": "#56b4e9", "ET": "#f0e442"}
REGION_STYLES: dict[str, dict[str, Any]] = {
    "WT": {"color": BLUE, "linestyle": "-", "marker": "o"},
    "TC": {"color": VERMILION, "linestyle": "--", "marker": "s"},
    "ET": {"color": GREEN, "linestyle": "-.", "marker": "^"},
}
MAP_COLOURS = "inferno"
"""Perceptually uniform, and its lightness rises with the value."""
FAINTEST = 0.02
"""Values of a map under this are not drawn."""
NAMES = {HEAD: "uncertainty head", "one_minus_p": "1 − p", "one_minus_max": "1 − max p", "border_distance": "distance"}


def save_figure(figure: Figure, path: Path, dots_per_inch: int = 120) -> None:
    """Write a PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dots_per_inch, bbox_inches="tight", format="png")


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """Values to draw black and white: of what is not 0, all but the outermost half percent."""
    inside = image[image != 0]
    low, high = np.percentile(inside if inside.size else image, (0.5, 99.5))
    return float(low), float(high)


def most_tumour(labels: np.ndarray) -> int:
    """The axial slice of (D, H, W) labels with most of it; the middle one where there is none."""
    return int((labels > 0).sum((1, 2)).argmax()) if labels.any() else len(labels) // 2
