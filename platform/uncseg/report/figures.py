"""Figures as PNG files, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from uncseg.files import whole_file
from uncseg.names import BASELINES, FLOORS, HEAD, ORACLE, PROTOCOLS

# told apart by every kind of eyes, and in grey (Okabe and Ito)
LABEL_COLOURS = {"NCR": "#d55e00", "ED": "#56b4e9", "ET": "#f0e442"}
NAMES = {HEAD: "uncertainty head", "one_minus_p": "1 − p", "one_minus_max": "1 − max p"}


def save_figure(figure: Figure, path: Path, dots_per_inch: int = 120) -> None:
    """Write a PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dots_per_inch, bbox_inches="tight", format="png")


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
    z = _most_tumour(reference if reference.any() else prediction)
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
    z = _most_tumour(prediction)
    names = ("image", "prediction", *(() if uncertainty is None else ("uncertainty",)))
    figure, panels = _slices(title, len(names), 2.4 * len(names))
    _draw_images(panels, image[z], names)
    _draw_labels(figure, ((panels[1], prediction[z]),))
    if uncertainty is not None:
        _draw_maps(figure, ((panels[2], uncertainty[z]),))
    save_figure(figure, path, 146)


def _most_tumour(labels: np.ndarray) -> int:
    """The axial slice with most of it; the middle one where there is none."""
    return int((labels > 0).sum((1, 2)).argmax()) if labels.any() else len(labels) // 2


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
        shown = np.ma.masked_less(values, 0.02)
        last = axes.imshow(shown, cmap="inferno", vmin=0, vmax=1, alpha=0.9)
    # one scale for all maps
    figure.colorbar(last, ax=[axes for axes, _ in drawn], shrink=0.85, pad=0.02)


def corr_curves(path: Path, epochs: pd.DataFrame) -> None:
    """Correlation with the error memory over epochs, mean over folds in a band of one sample sd; a panel a protocol."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, protocol in zip(panels, PROTOCOLS, strict=True):
        for name in (HEAD, *BASELINES, *FLOORS[:-1], ORACLE):
            style = ":" if name in FLOORS else "--" if name == ORACLE else "-"
            column = f"uncertainty/{protocol}/corr_ema/{name}"
            _curve(axes, epochs, column, {"label": NAMES.get(name, name), "linestyle": style})
        axes.set(title=f"{protocol} mask", xlabel="epoch", ylabel="correlation with the error memory")
        axes.grid(alpha=0.3)
    drawn = {line.get_label(): line for axes in panels for line in axes.lines}
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside right center", fontsize=9)
    save_figure(figure, path)


def dice_curves(path: Path, epochs: pd.DataFrame) -> None:
    """Patch Dice of WT, TC, ET over epochs, mean over folds in a band of one sample sd."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for region in ("wt", "tc", "et"):
        _curve(axes, epochs, f"val_patch/dice_{region}", {"label": region.upper()})
    axes.set(xlabel="epoch", ylabel="Dice of validation patches", ylim=(0, 1))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    save_figure(figure, path)


def _curve(axes: Axes, epochs: pd.DataFrame, column: str, style: Mapping[str, str]) -> None:
    if column not in epochs.columns:
        return
    by_epoch = epochs.groupby("epoch")[column]
    mean, spread = by_epoch.mean(), by_epoch.std(ddof=1).fillna(0)
    (line,) = axes.plot(mean.index, mean, **style)  # type: ignore[arg-type]
    axes.fill_between(mean.index, mean - spread, mean + spread, color=line.get_color(), alpha=0.12)
