"""Figure 1: a case in three planes through the largest disagreement of reference and prediction."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

from uncseg.evaluation.overlap import main_mask
from uncseg.evaluation.surface import bounding_box
from uncseg.report.case_images import SHOWN_MAPS, CaseImages, Voxel, largest_disagreement
from uncseg.report.style import FAINTEST, MAP_COLOURS, as_grey, draw_labels, label_patches, save_figure
from uncseg.tasks.task import Task

MARGIN_VOXELS = 3
PANEL_INCHES = 1.75
LEGEND_COLUMNS = 6
REFERENCE_LINE, PREDICTION_LINE, CUT_LINE = "#ffffff", "#56b4e9", "#e69f00"


@dataclass(frozen=True)
class Plane:
    """A way to cut (D, H, W) volumes whose axes run to the head, the back and the patient's left."""

    name: str
    axis: int
    """The axis perpendicular to the plane."""
    ends: tuple[str, str, str, str]
    """Letters at the left, right, top and bottom of the picture."""

    def cut(self, volume: np.ndarray, at: Voxel) -> np.ndarray:
        """Return the slice through a voxel, with rows from the top and columns from the left of the picture."""
        slice_: np.ndarray = volume.take(at[self.axis], axis=self.axis)
        return slice_ if self.axis == 0 else slice_[::-1]

    def in_plane(self, values: tuple[float, ...]) -> tuple[float, float]:
        """Return those two of three values, one per axis, that belong to rows and columns of the picture."""
        rows, columns = (value for axis, value in enumerate(values) if axis != self.axis)
        return rows, columns


PLANES = (
    Plane("axial", 0, ("R", "L", "A", "P")),
    Plane("coronal", 1, ("R", "L", "S", "I")),
    Plane("sagittal", 2, ("A", "P", "S", "I")),
)


def draw_case(path: Path, case: CaseImages, title: str, task: Task) -> None:
    """Draw Figure 1 of a case: a row per plane; columns for the image, the reference, the prediction and every map.

    The planes meet in :func:`~uncseg.report.case_images.largest_disagreement`, which the first column marks. All maps
    share one scale from 0 to 1; values below 0.02 are not drawn, so the image, dimmed, shows there. Lines are the
    borders of the main region in reference and prediction. Volumes are cropped to where the image or a segmentation is
    not 0.
    """
    at, why = largest_disagreement(case.reference, case.prediction, case.spacing_mm, task)
    case, at = _cropped(case, at)
    case = replace(case, image=as_grey(case.image))
    maps = [name for name in SHOWN_MAPS if name in case.maps]
    names = (task.shown_image, "reference", "prediction", *maps)
    heights = [_inches(plane, case) for plane in PLANES]
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(PANEL_INCHES * len(names) + 0.9, sum(heights) + 1.2), layout=layout)
    figure.suptitle(f"{title}\nplanes through {why}", fontsize=11)
    grid = figure.subplots(len(PLANES), len(names), squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (plane, axes_of_row) in enumerate(zip(PLANES, grid, strict=True)):
        for axes, name in zip(axes_of_row, names, strict=True):
            _draw_panel(axes, plane, case, at, name, task)
            if row == 0:
                axes.set_title(name, fontsize=10)
        axes_of_row[0].set_ylabel(plane.name, fontsize=10)
    _legend(figure, grid[:, 3:], task)
    save_figure(figure, path, 120)


def _cropped(case: CaseImages, at: Voxel) -> tuple[CaseImages, Voxel]:
    """The part of a case that is shown, and the voxel's place in it."""
    shown = (case.image != 0) | (case.reference > 0) | (case.prediction > 0)
    if not shown.any():
        return case, at
    box = bounding_box(shown, MARGIN_VOXELS)
    d, h, w = (n - s.start for n, s in zip(at, box, strict=True))
    maps = {name: values[box] for name, values in case.maps.items()}
    parts = (case.image[box], case.reference[box], case.prediction[box])
    return CaseImages(*parts, maps, case.spacing_mm), (d, h, w)


def _inches(plane: Plane, case: CaseImages) -> float:
    """Height of a plane's panels; all panels have the same width."""
    (rows, columns), (high, wide) = plane.in_plane(case.image.shape), plane.in_plane(case.spacing_mm)
    return float(np.clip(PANEL_INCHES * rows * high / (columns * wide), 0.4 * PANEL_INCHES, 1.6 * PANEL_INCHES))


def _draw_panel(axes: Axes, plane: Plane, case: CaseImages, at: Voxel, name: str, task: Task) -> None:
    high, wide = plane.in_plane(case.spacing_mm)
    shade: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "aspect": high / wide, "interpolation": "nearest"}
    axes.imshow(plane.cut(case.image, at) * (0.55 if name in SHOWN_MAPS else 1), **shade)
    reference, prediction = (plane.cut(labels, at) for labels in (case.reference, case.prediction))
    if name in SHOWN_MAPS:
        shown = np.ma.masked_less(plane.cut(case.maps[name], at), FAINTEST)
        axes.imshow(shown, **(shade | {"cmap": MAP_COLOURS}))
        _outline(axes, main_mask(reference, task), REFERENCE_LINE, "solid")
        _outline(axes, main_mask(prediction, task), PREDICTION_LINE, "dashed")
    elif name in ("reference", "prediction"):
        draw_labels(axes, reference if name == "reference" else prediction, task, high / wide)
    else:
        _mark(axes, plane, at, case.image.shape)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _outline(axes: Axes, mask: np.ndarray, colour: str, style: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=0.8, linestyles=style)


def _mark(axes: Axes, plane: Plane, at: Voxel, shape: tuple[int, ...]) -> None:
    """Draw the letters of the sides and the lines where the other two planes cut this one, but not over the voxel."""
    (row, column), (rows, columns) = plane.in_plane(at), plane.in_plane(shape)
    row = row if plane.axis == 0 else shape[0] - 1 - row
    gap = 0.06 * max(rows, columns)
    line: dict[str, Any] = {"color": CUT_LINE, "linewidth": 0.8}
    axes.plot([-0.5, column - gap], [row, row], [column + gap, columns - 0.5], [row, row], **line)
    axes.plot([column, column], [-0.5, row - gap], [column, column], [row + gap, rows - 0.5], **line)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    font: dict[str, Any] = {"color": "white", "fontsize": 8, "fontweight": "bold", "transform": axes.transAxes}
    outline = [Stroke(linewidth=2, foreground="black"), Normal()]  # to be read on bright tissue, too
    places = [(0.03, 0.5, "left", "center"), (0.97, 0.5, "right", "center")]
    places += [(0.5, 0.97, "center", "top"), (0.5, 0.03, "center", "bottom")]
    for letter, (x, y, ha, va) in zip(plane.ends, places, strict=True):
        axes.text(x, y, letter, ha=ha, va=va, path_effects=outline, **font)


def _legend(figure: Figure, with_maps: np.ndarray, task: Task) -> None:
    main = task.main_region
    reference = Line2D([], [], color=REFERENCE_LINE, label=f"border of the reference ({main})")
    prediction = Line2D([], [], color=PREDICTION_LINE, linestyle="dashed", label=f"border of the prediction ({main})")
    cuts = Line2D([], [], color=CUT_LINE, label="the other two planes")
    handles = [*label_patches(task), reference, prediction, cuts]
    rows = -(-len(handles) // LEGEND_COLUMNS)
    look: dict[str, Any] = {"fontsize": 9, "facecolor": "0.45", "labelcolor": "white"}
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // rows), **look)
    if with_maps.size:
        (bar,) = (image for image in with_maps[0, 0].images if image.get_cmap().name == MAP_COLOURS)
        figure.colorbar(bar, ax=with_maps, shrink=0.6, pad=0.01, label="0 to 1, all maps")
