"""A small picture of one patch at one epoch of a training; all pictures of a fold have the same size."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageColor, ImageDraw, ImageFont

from uncseg.files import whole_file
from uncseg.report.style import FAINTEST, MAP_COLOURS, as_grey, fullest_slice, label_colours
from uncseg.tasks.task import Task

if TYPE_CHECKING:  # its module imports nnU-Net
    from uncseg.method.training.observed_patch import Observation

SIDE, GAP, TOP, BOTTOM = 176, 6, 46, 30
LEGEND_LEFT, LEGEND_RIGHT = GAP + SIDE + GAP, GAP + 3 * (SIDE + GAP)
ENTRY_WIDTH, ENTRY_HEIGHT = 58, 18
INK, SOFT, PAPER = (31, 35, 40), (89, 99, 110), (255, 255, 255)


def draw_progress(path: Path, patch: "Observation", title: str, task: Task) -> None:
    """Draw the axial slice with most of the main region: image, reference, prediction, error memory and uncertainty.

    Without an uncertainty, variance_stable is drawn in its place. The training waits for the picture, so Pillow draws
    it in a few milliseconds.
    """
    z = fullest_slice([patch.reference], task)
    grey = np.repeat((255 * as_grey(patch.image[z])).astype(np.uint8)[..., None], 3, axis=-1)
    u = patch.uncertainty
    name, values = ("variance_stable", patch.variance) if u is None else ("uncertainty", u)
    panels = {
        task.shown_image: grey,
        "reference": _with_labels(grey, patch.reference[z], task),
        "prediction": _with_labels(grey, patch.prediction[z], task),
        "error memory": _with_map(grey, patch.error[z]),
        name: _with_map(grey, values[z]),
    }
    places = _legend_places(task.labels)
    bottom = BOTTOM + places[-1][1]
    picture = Image.new("RGB", (GAP + len(panels) * (SIDE + GAP), TOP + SIDE + bottom), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((GAP, 5), title, INK, _font(15))
    for number, (name, panel) in enumerate(panels.items()):
        left = GAP + number * (SIDE + GAP)
        pen.text((left, 27), name, SOFT, _font(12))
        picture.paste(_square(panel), (left, TOP))
    _legend(picture, pen, label_colours(task), places)
    with whole_file(path) as temporary:
        picture.save(temporary, "png")


def _with_labels(grey: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:
    shown = grey.copy()
    for name, colour in label_colours(task).items():
        inside = labels == task.labels[name]
        shown[inside] = 0.25 * grey[inside] + 0.75 * np.array(ImageColor.getrgb(colour))
    return shown


def _with_map(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    colours = (255 * colormaps[MAP_COLOURS](np.clip(values, 0, 1))[..., :3]).astype(np.uint8)
    return np.where((values >= FAINTEST)[..., None], colours, grey)


def _square(panel: np.ndarray) -> Image.Image:
    """Enlarge a panel to SIDE pixels, with its proportions kept."""
    height, width, _ = panel.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = Image.new("RGB", (SIDE, SIDE))
    enlarged = Image.fromarray(panel).resize(size, Image.Resampling.NEAREST)
    square.paste(enlarged, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def _legend_places(names: Iterable[str]) -> list[tuple[int, int]]:
    """Return where the entries of the labels begin: pixels from the left, and below the first line of the legend."""
    places, left, below = [], LEGEND_LEFT, 0
    for name in names:
        width = max(ENTRY_WIDTH, 26 + round(_font(12).getlength(name)))
        if left > LEGEND_LEFT and left + width > LEGEND_RIGHT:
            left, below = LEGEND_LEFT, below + ENTRY_HEIGHT
        places.append((left, below))
        left += width
    return places


def _legend(
    picture: Image.Image, pen: ImageDraw.ImageDraw, colours: Mapping[str, str], places: Sequence[tuple[int, int]]
) -> None:
    top = TOP + SIDE + 8
    for (name, colour), (left, below) in zip(colours.items(), places, strict=True):
        pen.rectangle((left, top + below + 2, left + 11, top + below + 13), colour)
        pen.text((left + 16, top + below), name, SOFT, _font(12))
    bar_left, width = GAP + 3 * (SIDE + GAP), 2 * SIDE + GAP - 36
    shades = np.tile(np.linspace(0, 1, width), (12, 1))
    bar = (255 * colormaps[MAP_COLOURS](shades)[..., :3]).astype(np.uint8)
    pen.text((bar_left, top), "0", SOFT, _font(12))
    picture.paste(Image.fromarray(bar), (bar_left + 14, top + 2))
    pen.text((bar_left + width + 20, top), "1", SOFT, _font(12))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
