"""Lesion-wise scores by the rule of BraTS 2023 (GLI): each lesion scored for itself, each false lesion counted."""

from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from uncseg.evaluation.overlap import dice
from uncseg.evaluation.surface import NO_DISTANCE_MM, bounding_box, hd95_mm

DILATIONS = 3
SMALLEST_LESION_MM3 = 50.0
Box = tuple[slice, ...]


def lesionwise(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Lesion-wise Dice and HD95 (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics, BraTS-GLI).

    Reference voxels that one component of the reference, dilated 3 times with the 18-neighbour element, holds are a
    lesion. Components of the prediction (26 neighbours) that touch this dilation are matched, whole; one may match
    several lesions. Lesions of at most 50 mm³ drop out, with the components that match only them.

    Args:
        reference, prediction: bool, 3D, the same shape.
        spacing_mm: along the array's axes.

    Returns:
        ``lesionwise_dice`` in [0, 1], ``lesionwise_hd95_mm``, and ``num_tp``, ``num_fp``, ``num_fn``: lesions found,
        components that match none, lesions missed. 1, 0 mm and no lesion where there is nothing on either side.
    """
    components, boxes, of_components = _components(prediction)
    scores: list[tuple[float, float]] = []
    touched: set[int] = set()
    found = 0
    voxel_mm3 = float(np.prod(spacing_mm))
    for lesion, box, matched in _lesions(reference, components, of_components):
        touched.update(matched)
        if np.count_nonzero(lesion) * voxel_mm3 <= SMALLEST_LESION_MM3:
            continue
        found += bool(matched)
        whole = _around([box, *(boxes[component] for component in matched)])
        expected = np.zeros(tuple(part.stop - part.start for part in whole), dtype=bool)
        expected[tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, whole, strict=True))] = lesion
        merged = _cut(components, of_components, whole, matched)
        scores.append((dice(expected, merged), hd95_mm(expected, merged, spacing_mm)))
    false = len(boxes) - len(touched)
    count = len(scores) + false
    return {
        "lesionwise_dice": sum(score for score, _ in scores) / count if count else 1.0,
        "lesionwise_hd95_mm": (sum(hd95 for _, hd95 in scores) + NO_DISTANCE_MM * false) / count if count else 0.0,
        "num_tp": found,
        "num_fp": false,
        "num_fn": len(scores) - found,
    }


def _components(prediction: np.ndarray) -> tuple[np.ndarray, dict[int, Box], Box]:
    """The prediction's components in its bounding box, the box of each in the volume, and that bounding box."""
    if not prediction.any():
        nowhere = tuple(slice(0, 0) for _ in prediction.shape)
        return np.zeros((0, 0, 0), dtype=np.uint32), {}, nowhere
    box = bounding_box(prediction)
    components, count = cc3d.connected_components(np.ascontiguousarray(prediction[box]), connectivity=26, return_N=True)
    boxes = ndimage.find_objects(components.astype(np.int32))
    return components, {n + 1: _moved(boxes[n], box) for n in range(count)}, box


def _lesions(reference: np.ndarray, components: np.ndarray, of_components: Box) -> Any:
    """Each lesion as (its voxels in its dilation's box, that box, the components that touch the dilation)."""
    if not reference.any():
        return
    # within the volume: what would grow beyond its border connects nothing
    box = tuple(
        slice(max(0, part.start - DILATIONS), min(size, part.stop + DILATIONS))
        for part, size in zip(bounding_box(reference), reference.shape, strict=True)
    )
    element = ndimage.generate_binary_structure(3, 2)
    dilated = ndimage.binary_dilation(reference[box], element, iterations=DILATIONS)
    lesions, count = cc3d.connected_components(dilated, connectivity=26, return_N=True)
    for number, part in zip(range(1, count + 1), ndimage.find_objects(lesions.astype(np.int32)), strict=True):
        own = lesions[part] == number
        place = _moved(part, box)
        near = _cut(components, of_components, place)
        matched = np.unique(near[own])
        yield own & reference[place], place, [int(component) for component in matched if component]


def _cut(components: np.ndarray, of_components: Box, box: Box, matched: Sequence[int] | None = None) -> np.ndarray:
    """A box of the volume: numbers of components, or whether a voxel is of one of those matched."""
    wanted = np.zeros(tuple(part.stop - part.start for part in box), dtype=components.dtype)
    both = [
        (max(b.start, c.start), min(b.stop, c.stop), b.start, c.start) for b, c in zip(box, of_components, strict=True)
    ]
    if all(start < stop for start, stop, _, _ in both):
        inside = tuple(slice(start - b, stop - b) for start, stop, b, _ in both)
        wanted[inside] = components[tuple(slice(start - c, stop - c) for start, stop, _, c in both)]
    return wanted if matched is None else np.isin(wanted, matched)


def _moved(part: Box, box: Box) -> Box:
    return tuple(slice(p.start + b.start, p.stop + b.start) for p, b in zip(part, box, strict=True))


def _around(boxes: Sequence[Box]) -> Box:
    return tuple(slice(min(p.start for p in axis), max(p.stop for p in axis)) for axis in zip(*boxes, strict=True))
