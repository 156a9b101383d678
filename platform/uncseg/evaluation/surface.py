"""Distances between the surfaces of two masks, as DeepMind's surface-distance and the BraTS challenge define them.

A mask's surface lies on the corners of its voxels. A corner belongs to it where the eight voxels around it are neither
all inside nor all outside; its weight is the area of the triangles that marching cubes draws there (Nikolov et al.
2018, arXiv:1809.04430).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

NO_DISTANCE_MM = 374.0
"""Distance where only one of two masks is empty, about the diagonal of a BraTS volume: the challenge's rule."""
CORNERS = tuple(itertools.product((0, 1), repeat=3))
_Nearest = tuple[np.ndarray, np.ndarray]


class SurfaceDistances:
    """Distances between the surfaces of two volumes, and between those of their parts.

    Args:
        a, b: bool, or numbers of parts that do not touch each other (0: outside); 3D, the same shape.
        spacing_mm: along the arrays' axes.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, spacing_mm: Sequence[float]) -> None:
        spacing = tuple(float(step) for step in spacing_mm)
        self._a, self._b = _surface_of(a, spacing), _surface_of(b, spacing)
        self._from_a, self._from_b = _nearest(self._a, self._b), _nearest(self._b, self._a)

    def hd95_mm(self) -> float:
        """Return the Hausdorff distance at the 95th percentile of each surface's area, the larger of both directions.

        It is in mm, 0 where both are empty, 374 where one is.
        """
        return _hd95((self._a.areas, self._from_a[0]), (self._b.areas, self._from_b[0]))

    def hd95_of_parts(self, part: int, others: Sequence[int]) -> float:
        """Return the HD95 between one part of ``a`` and several of ``b`` taken together."""
        mine, theirs = self._a.parts == part, np.isin(self._b.parts, others)
        return _hd95(
            (self._a.areas[mine], _known_or_searched(self._a, self._from_a, mine, self._b, theirs)),
            (self._b.areas[theirs], _known_or_searched(self._b, self._from_b, theirs, self._a, mine)),
        )


@dataclass(frozen=True)
class _Surface:
    points: np.ndarray
    """(N, 3) in mm, sorted by ``numbers``."""
    numbers: np.ndarray
    """(N,), a number for each corner of the volume."""
    areas: np.ndarray
    """(N,) in mm²."""
    parts: np.ndarray
    """(N,), the part to whose surface each point belongs."""


def _surface_of(volume: np.ndarray, spacing: tuple[float, ...]) -> _Surface:
    if not volume.any():
        none = np.zeros(0)
        return _Surface(np.zeros((0, 3)), none.astype(np.int64), none, none)
    box = bounding_box(volume)
    parts = np.pad(volume[box], 1)
    inside = (parts > 0).astype(np.uint8)
    shape = [size - 1 for size in inside.shape]
    codes = np.zeros(shape, dtype=np.uint8)
    for bit, start in enumerate(CORNERS):
        codes |= inside[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] << bit
    at = np.nonzero((codes != 0) & (codes != 255))
    part = np.zeros(len(at[0]), dtype=parts.dtype)
    if volume.dtype != bool:
        for start in CORNERS:  # parts do not touch, so the voxels around a corner belong to one
            part = np.maximum(part, parts[tuple(axis + s for axis, s in zip(at, start, strict=True))])
    corners = np.stack(at, axis=1) + np.array([axis.start for axis in box])
    z, y, x = corners.astype(np.int64).T
    numbers = (z << 40) + (y << 20) + x  # unique below 2²⁰ voxels along each axis
    return _Surface(corners * np.array(spacing), numbers, corner_areas(spacing)[codes[at]], part)


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box around the voxels of a 3D volume that are True or above 0; there has to be one.

    On each side the box is larger by ``margin`` voxels, as far as the volume has them.
    """
    inside = mask if mask.dtype == bool else mask > 0
    rows = np.any(inside, axis=-1)  # the longest pass, which runs along memory
    spans = [np.any(rows, axis=1), np.any(rows, axis=0), np.any(inside[rows], axis=0)]
    ends = [np.flatnonzero(span)[[0, -1]] for span in spans]
    return tuple(slice(max(0, int(first) - margin), int(last) + 1 + margin) for first, last in ends)


@lru_cache
def corner_areas(spacing: tuple[float, ...]) -> np.ndarray:
    """Return the area of the surface at a corner by its code, (256,) in mm².

    Bit n of a code is set where the n-th of the eight voxels around the corner, in the order of CORNERS, is inside. A
    pattern has the same area however it is turned or mirrored, as long as the spacing in mm is turned with it.
    """
    return np.array([_area(code, spacing) for code in range(256)])


def _area(code: int, spacing: tuple[float, ...]) -> float:
    # marching cubes is ambiguous where voxels touch by an edge; the definition takes the side with fewer voxels as
    # inside, so that a mask and its complement have the same surface
    code = 255 - code if code.bit_count() > 4 else code
    if code == 0:
        return 0.0
    cube = np.array([code >> bit & 1 for bit in range(8)], dtype=np.float32).reshape(2, 2, 2)
    vertices, faces, _, _ = marching_cubes(cube, 0.5, method="lorensen")
    first, second, third = (vertices.astype(np.float64) * spacing)[faces].swapaxes(0, 1)
    return float(np.linalg.norm(np.cross(second - first, third - first), axis=1).sum() / 2)


def _nearest(a: _Surface, b: _Surface) -> _Nearest:
    """Return the distance in mm from each point of ``a`` to the nearest one of ``b``, and that one's index, (N,)."""
    distances, index = np.full(len(a.points), np.inf), np.zeros(len(a.points), dtype=np.int64)
    if len(b.points) and len(a.points):
        # no search where the surfaces touch, as most of them do
        index = np.minimum(np.searchsorted(b.numbers, a.numbers), len(b.numbers) - 1)
        apart = b.numbers[index] != a.numbers
        distances[~apart] = 0
        distances[apart], index[apart] = _tree(b.points).query(a.points[apart])
    return distances, index


def _tree(points: np.ndarray) -> cKDTree:
    # for points on a grid, plain midpoint splits are built and searched several times faster than median ones
    return cKDTree(points, balanced_tree=False, compact_nodes=False)


def _known_or_searched(a: _Surface, known: _Nearest, mine: np.ndarray, b: _Surface, theirs: np.ndarray) -> np.ndarray:
    """Return distances from some points of ``a`` to some of ``b``, searched where the nearest of all is not one."""
    distances, index = (values[mine] for values in known)
    if theirs.any() and len(distances):
        others = ~theirs[index]
        if others.any():
            distances[others] = _tree(b.points[theirs]).query(a.points[mine][others])[0]
    return distances


def _hd95(*directions: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the larger 95th percentile of two directions, each (areas, distances in mm)."""
    empty = [len(areas) == 0 for areas, _ in directions]
    if any(empty):
        return 0.0 if all(empty) else NO_DISTANCE_MM
    return max(_percentile(*direction) for direction in directions)


def _percentile(areas: np.ndarray, distances: np.ndarray) -> float:
    # equal distances are sorted by area, as in the definition's code: where the share is exactly 0.95 the order of the
    # sum decides, and it must not depend on the volume's orientation
    order = np.lexsort((areas, distances))
    share = np.cumsum(areas[order]) / areas[order].sum()
    return float(distances[order][min(int(np.searchsorted(share, 0.95)), len(order) - 1)])
