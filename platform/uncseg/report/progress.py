"""A small picture of one patch at one epoch of a training; all of a fold have one size, so that they can be leafed."""

from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

from uncseg.dataset.brats import LABELS
from uncseg.files import whole_file
from uncseg.report.style import FAINTEST, LABEL_COLOURS, MAP_COLOURS, grey_range, most_tumour

SIDE, GAP, TOP, BOTTOM = 176, 6, 46, 30
INK, SOFT, PAPER = (31, 35, 40), (89, 99, 110), (255, 255, 255)


class Patch(Protocol):
    """What is drawn, (D, H, W): as :class:`uncseg.method.training.watched_patch.Observation` has it."""

    @property
    def image(self) -> np.ndarray:
        """FLAIR, any units."""

    @property
    def reference(self) -> np.ndarray:
        """Labels 1 NCR, 2 ED, 3 ET."""

    @property
    def prediction(self) -> np.ndarray:
        """The same."""

    @property
    def error(self) -> np.ndarray:
        """The error memory's, in [0, 1]."""

    @property
    def variance(self) -> np.ndarray:
        """The variance baseline's, in [0, 1]."""

    @property
    def uncertainty(self) -> np.ndarray | None:
        """In [0, 1]; None without the head."""


def draw_progress(path: Path, patch: Patch, title: str) -> None:
    """Five panels of the axial slice with most reference: image, reference, prediction, error memory, uncertainty.

    Without an uncertainty, variance_stable stands in its place. Drawn in a few milliseconds, since a training waits.

    Args:
        path: PNG to write.
        patch: what it shows.
        title: a line above.
    """
    z = most_tumour(patch.reference)
    grey = _grey(patch.image[z])
    last, name = (patch.uncertainty, "uncertainty") if patch.uncertainty is not None else (None, "variance_stable")
    maps = {"error memory": patch.error[z], name: (patch.variance if last is None else last)[z]}
    labels = {"reference": patch.reference[z], "prediction": patch.prediction[z]}
    panels = {"image (FLAIR)": grey}
    panels |= {name: _with_labels(grey, values) for name, values in labels.items()}
    panels |= {name: _with_map(grey, values) for name, values in maps.items()}
    picture = Image.new("RGB", (GAP + len(panels) * (SIDE + GAP), TOP + SIDE + BOTTOM), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((GAP, 5), title, INK, _font(15))
    for number, (name, panel) in enumerate(panels.items()):
        left = GAP + number * (SIDE + GAP)
        pen.text((left, 27), name, SOFT, _font(12))
        picture.paste(_square(panel), (left, TOP))
    _legend(picture, pen)
    with whole_file(path) as temporary:
        picture.save(temporary, "png")


def _grey(image: np.ndarray) -> np.ndarray:
    low, high = grey_range(image)
    shade = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat((255 * shade).astype(np.uint8)[..., None], 3, axis=-1)


def _with_labels(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shown = grey.copy()
    for name, number in LABELS.items():
        inside = labels == number
        shown[inside] = 0.25 * grey[inside] + 0.75 * _rgb(LABEL_COLOURS[name])
    return shown


def _with_map(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    colours = (255 * colormaps[MAP_COLOURS](np.clip(values, 0, 1))[..., :3]).astype(np.uint8)
    return np.where((values >= FAINTEST)[..., None], colours, grey)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])


def _square(panel: np.ndarray) -> Image.Image:
    """Enlarged to one size whatever the patch's, its proportions kept."""
    height, width, _ = panel.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = Image.new("RGB", (SIDE, SIDE))
    enlarged = Image.fromarray(panel).resize(size, Image.Resampling.NEAREST)
    square.paste(enlarged, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def _legend(picture: Image.Image, pen: ImageDraw.ImageDraw) -> None:
    top, left = TOP + SIDE + 8, GAP + SIDE + GAP
    for name, colour in LABEL_COLOURS.items():
        pen.rectangle((left, top + 2, left + 11, top + 13), tuple(_rgb(colour).tolist()))
        pen.text((left + 16, top), name, SOFT, _font(12))
        left += 58
    bar_left, width = GAP + 3 * (SIDE + GAP), 2 * SIDE + GAP - 36
    shades = np.tile(np.linspace(0, 1, width), (12, 1))
    bar = (255 * colormaps[MAP_COLOURS](shades)[..., :3]).astype(np.uint8)
    pen.text((bar_left, top), "0", SOFT, _font(12))
    picture.paste(Image.fromarray(bar), (bar_left + 14, top + 2))
    pen.text((bar_left + width + 20, top), "1", SOFT, _font(12))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
