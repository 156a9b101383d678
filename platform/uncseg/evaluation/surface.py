"""Distances between the surfaces of two masks, as DeepMind's surface-distance and the BraTS challenge define them.

A mask's surface lies on the corners of its voxels: a corner belongs to it where the eight voxels around are neither all
inside nor all outside, and weighs as much as the area of the triangles that marching cubes draws there (Nikolov et al.
2018, arXiv:1809.04430).
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

NO_DISTANCE_MM = 374.0
"""Where only one of two masks is empty: about the diagonal of a BraTS volume, the challenge's rule."""
CORNERS = tuple(itertools.product((0, 1), repeat=3))


def hd95_mm(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Hausdorff distance at the 95th percentile of each surface's area, the larger of both directions.

    Args:
        reference, prediction: bool, 3D, the same shape.
        spacing_mm: along the array's axes.

    Returns:
        mm, ≥ 0; 0 where both are empty, 374 where one is.
    """
    if not reference.any() or not prediction.any():
        return NO_DISTANCE_MM if reference.any() or prediction.any() else 0.0
    spacing = tuple(float(step) for step in spacing_mm)
    a, area_of_a = _surface(reference, spacing)
    b, area_of_b = _surface(prediction, spacing)
    return max(_percentile(a, area_of_a, b), _percentile(b, area_of_b, a))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        (inside,) = np.nonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _surface(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Corners on the surface in mm, (N, 3), and the area of each in mm², (N,)."""
    box = bounding_box(mask)
    inside = np.pad(mask[box], 1).astype(np.uint8)
    shape = [size - 1 for size in inside.shape]
    codes = np.zeros(shape, dtype=np.uint8)
    for bit, start in enumerate(CORNERS):
        codes |= inside[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] << bit
    at = np.nonzero((codes != 0) & (codes != 255))
    points = np.stack(at, axis=1) + np.array([part.start for part in box])
    return points * np.array(spacing), corner_areas(spacing)[codes[at]]


@lru_cache
def corner_areas(spacing: tuple[float, ...]) -> np.ndarray:
    """Area of the surface at a corner by its code, (256,) in mm².

    Args:
        spacing: mm along the axes.

    Bit n of a code says whether the n-th of the eight voxels around the corner is inside, in the order of CORNERS. The
    area is the same for a pattern however it is turned or mirrored, as long as the spacing turns with it.
    """
    return np.array([_area(code, spacing) for code in range(256)])


def _area(code: int, spacing: tuple[float, ...]) -> float:
    # marching cubes has more than one answer where voxels touch by an edge; the definition takes the side with fewer
    # voxels as inside, so that a mask and its complement have one surface
    code = 255 - code if code.bit_count() > 4 else code
    if code == 0:
        return 0.0
    cube = np.array([code >> bit & 1 for bit in range(8)], dtype=np.float32).reshape(2, 2, 2)
    vertices, faces, _, _ = marching_cubes(cube, 0.5, method="lorensen")
    first, second, third = (vertices.astype(np.float64) * spacing)[faces].swapaxes(0, 1)
    return float(np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2)


def _percentile(points: np.ndarray, areas: np.ndarray, other: np.ndarray) -> float:
    # grid points: plain midpoint splits are built and searched several times faster than median ones
    distances, _ = cKDTree(other, balanced_tree=False, compact_nodes=False).query(points)
    order = np.argsort(distances, kind="stable")
    share = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order][min(int(np.searchsorted(share, 0.95)), len(order) - 1)])
