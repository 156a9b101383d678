"""Segmentations and maps over one slice of a case."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from uncseg.report import style

PANEL_INCHES = 2.3


def draw_overlay(
    path: Path,
    image: np.ndarray,
    segmentations: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    title: str,
    image_name: str = "image (FLAIR)",
) -> None:
    """Draw an axial slice: a panel for the image, for each segmentation and for each map.

    The slice is the one with most tumour in the first segmentation that has any, or else the middle one. Row 0 is drawn
    on top and column 0 on the left: with BraTS' axes, anterior is up and the patient's right is on the left, as
    radiologists look at it. All volumes are (D, H, W): the image in any units, segmentations with the labels 1 NCR,
    2 ED, 3 ET, and maps in [0, 1].
    """
    z = style.most_tumour(style.first_with_tumour(segmentations))
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
        style.draw_labels(panels[name], labels[z])
    figure.legend(handles=style.label_patches(), loc="outside lower center", ncols=3, fontsize=10, frameon=False)
    for name, values in maps.items():
        shown = np.ma.masked_less(values[z], style.FAINTEST)
        last = panels[name].imshow(shown, cmap=style.MAP_COLOURS, vmin=0, vmax=1, alpha=0.9)
    if maps:
        figure.colorbar(last, ax=[panels[name] for name in maps], shrink=0.85, pad=0.02)  # all maps share one scale
    style.save_figure(figure, path, 146)
