"""Segmentations and maps over one slice of a case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from uncseg.report import style
from uncseg.tasks.task import Task

PANEL_INCHES = 2.3


def draw_overlay(
    path: Path,
    image: np.ndarray,
    segmentations: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    title: str,
    task: Task,
    image_name: str | None = None,
) -> None:
    """Draw an axial slice: a panel for the image, for each segmentation and for each map.

    The slice is that of :func:`~uncseg.report.style.fullest_slice`. Row 0 is drawn on top and column 0 on the left:
    with BraTS' axes, anterior is up and the patient's right is on the left, as radiologists look at it. All volumes are
    (D, H, W): the image in any units, by default the one that the task shows; segmentations with the labels of the
    task; and maps in [0, 1].
    """
    z = style.fullest_slice([*segmentations.values()], task)
    image_name = task.shown_image if image_name is None else image_name
    names = (image_name, *segmentations, *maps)
    figure = Figure(figsize=(PANEL_INCHES * len(names), 3.1), layout="constrained")
    figure.suptitle(title, fontsize=12)
    panels = dict(zip(names, figure.subplots(1, len(names)), strict=True))
    darkest, brightest = np.percentile(image[z], (0.5, 99.5))
    for name, axes in panels.items():
        axes.imshow(image[z], cmap="gray", vmin=darkest, vmax=brightest)
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()
    for name, labels in segmentations.items():
        style.draw_labels(panels[name], labels[z], task)
    columns = style.legend_columns(task.labels, PANEL_INCHES * len(names))
    look: dict[str, Any] = {"ncols": columns, "fontsize": 10, "frameon": False}
    figure.legend(handles=style.label_patches(task), loc="outside lower center", **look)
    for name, values in maps.items():
        shown = np.ma.masked_less(values[z], style.FAINTEST)
        last = panels[name].imshow(shown, cmap=style.MAP_COLOURS, vmin=0, vmax=1, alpha=0.9)
    if maps:
        figure.colorbar(last, ax=[panels[name] for name in maps], shrink=0.85, pad=0.02)  # all maps share one scale
    style.save_figure(figure, path, 146)
