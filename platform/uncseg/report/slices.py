"""Volumes as sheets of slices, small enough for a page: one picture per layer, with all axial slices side by side."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageColor

from uncseg.evaluation.surface import bounding_box
from uncseg.report.style import FAINTEST, MAP_COLOURS, as_grey, fullest_slice, label_colours
from uncseg.tasks.task import Task

SHADES = 32
MARGIN_VOXELS = 3


@dataclass(frozen=True)
class Sheet:
    """The layers of a case; all have the same layout of slices."""

    width: int
    height: int
    slices: int
    columns: int
    first: int
    """The slice shown first."""
    layers: Mapping[str, str]
    """Data URLs by name; "image" lies below the others."""


def make_sheet(
    image: np.ndarray, labels: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray], task: Task
) -> Sheet:
    """Return the sheet of a case, cropped to where the image is not 0.

    All volumes are (D, H, W): the image in any units, segmentations with the labels of the task, and maps in [0, 1].
    The slice shown first is that of :func:`~uncseg.report.style.fullest_slice`.
    """
    inside = image != 0
    box = bounding_box(inside, MARGIN_VOXELS) if inside.any() else tuple(slice(None) for _ in image.shape)
    grey = (as_grey(image[box].astype(np.float32)) * 255).astype(np.uint8)
    slices, height, width = grey.shape
    columns = math.ceil(math.sqrt(slices))
    colours = [*chain.from_iterable(map(ImageColor.getrgb, label_colours(task).values()))]
    map_colours = np.round(255 * colormaps[MAP_COLOURS](np.linspace(0, 1, SHADES))[:, :3]).astype(int).ravel().tolist()
    layers = {"image": _url(Image.fromarray(_tiled(grey, columns)), "jpeg", quality=80)}
    layers |= {name: _png(_tiled(array[box], columns), colours) for name, array in labels.items()}
    layers |= {name: _png(_tiled(_shades(array[box]), columns), map_colours) for name, array in maps.items()}
    first = fullest_slice([array[box] for array in labels.values()], task)
    return Sheet(width, height, slices, columns, first, layers)


def _tiled(volume: np.ndarray, columns: int) -> np.ndarray:
    slices, height, width = volume.shape
    rows = math.ceil(slices / columns)
    padded = np.zeros((rows * columns, height, width), dtype=np.uint8)
    padded[:slices] = volume
    return padded.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def _shades(values: np.ndarray) -> np.ndarray:
    """Shades from 1 to SHADES; 0 where nothing is drawn."""
    shade = 1 + np.minimum((np.clip(values, 0, 1) * SHADES).astype(np.uint8), SHADES - 1)
    return np.where(values < FAINTEST, 0, shade).astype(np.uint8)


def _png(indices: np.ndarray, colours: list[int]) -> str:
    """A picture whose numbers from 1 have colours (red, green, blue, red, …) and whose 0 is transparent."""
    picture = Image.frombytes("P", indices.shape[::-1], np.ascontiguousarray(indices).tobytes())
    picture.putpalette([0, 0, 0, *colours])
    return _url(picture, "png", transparency=0, optimize=True)


def _url(picture: Image.Image, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return data_url(kind, stream.getvalue())


def data_url(kind: str, content: bytes) -> str:
    """Return a picture (kind: png, jpeg) as text for a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
