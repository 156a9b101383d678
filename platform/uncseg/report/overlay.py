"""Overlays of one slice, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from uncseg.report.style import FAINTEST, LABEL_COLOURS, MAP_COLOURS, most_tumour, save_figure


def overlay(
    path: Path,
    image: np.ndarray,
    reference: np.ndarray,
    prediction: np.ndarray,
    error: np.ndarray,
    uncertainty: np.ndarray,
    title: str,
    uncertainty_name: str = "uncertainty",
) -> None:
    """Five panels of one axial slice: image, reference, prediction, error, uncertainty.

    The slice is the one with most tumour in the reference; in the prediction, where the reference has none; the middle
    one, where neither has any. Row 0 is drawn on top and column 0 on the left: with BraTS' axes, anterior is up and
    the patient's right is on the left, as radiologists look at it.

    Args:
        path: PNG to write.
        image: FLAIR, (D, H, W), any units.
        reference, prediction: labels 1 NCR, 2 ED, 3 ET.
        error: the error memory's map, (D, H, W) in [0, 1].
        uncertainty: (D, H, W) in [0, 1].
        title: a line above.
        uncertainty_name: what the last panel shows, where it is not the head's map.
    """
    z = most_tumour(reference if reference.any() else prediction)
    figure, panels = _slices(title, 5, 11.2)
    names = ("image (FLAIR)", "reference", "prediction", "error memory", uncertainty_name)
    _draw_images(panels, image[z], names)
    _draw_labels(figure, ((panels[1], reference[z]), (panels[2], prediction[z])))
    _draw_maps(figure, ((panels[3], error[z]), (panels[4], uncertainty[z])))
    save_figure(figure, path, 146)


def case_overlay(
    path: Path, image: np.ndarray, prediction: np.ndarray, uncertainty: np.ndarray | None, title: str
) -> None:
    """Two or three panels of the axial slice with most predicted tumour: image, prediction, uncertainty.

    Args:
        path, image, prediction, title: as :func:`overlay` takes them.
        uncertainty: (D, H, W) in [0, 1]; None: there is none.
    """
    z = most_tumour(prediction)
    names = ("image", "prediction", *(() if uncertainty is None else ("uncertainty",)))
    figure, panels = _slices(title, len(names), 2.4 * len(names))
    _draw_images(panels, image[z], names)
    _draw_labels(figure, ((panels[1], prediction[z]),))
    if uncertainty is not None:
        _draw_maps(figure, ((panels[2], uncertainty[z]),))
    save_figure(figure, path, 146)


def _slices(title: str, count: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, 3.1), layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure, figure.subplots(1, count)


def _draw_images(panels: Sequence[Axes], image: np.ndarray, names: Sequence[str]) -> None:
    darkest, brightest = np.percentile(image, (0.5, 99.5))
    for axes, name in zip(panels, names, strict=True):
        axes.imshow(image, cmap="gray", vmin=darkest, vmax=brightest)
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()


def _draw_labels(figure: Figure, drawn: Sequence[tuple[Axes, np.ndarray]]) -> None:
    colours = ListedColormap(list(LABEL_COLOURS.values()))
    norm = BoundaryNorm([0.5, 1.5, 2.5, 3.5], 3)
    for axes, labels in drawn:
        axes.imshow(np.ma.masked_equal(labels, 0), cmap=colours, norm=norm, alpha=0.75, interpolation="nearest")
    handles = [Patch(color=colour, label=label) for label, colour in LABEL_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10, frameon=False)


def _draw_maps(figure: Figure, drawn: Sequence[tuple[Axes, np.ndarray]]) -> None:
    for axes, values in drawn:
        shown = np.ma.masked_less(values, FAINTEST)
        last = axes.imshow(shown, cmap=MAP_COLOURS, vmin=0, vmax=1, alpha=0.9)
    # one scale for all maps
    figure.colorbar(last, ax=[axes for axes, _ in drawn], shrink=0.85, pad=0.02)
