"""Where a patch lies in its case: the geometry that travels with a patch through nnU-Net's transforms.

Patch voxel p lies at case voxel A·p + b, in voxel indices of the case's preprocessed grid with axes D H W. nnU-Net
crops, rotates and scales around the crop's centre, crops again and mirrors: all of it is affine.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

EXACT_TOLERANCE = 1e-6

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class PatchGeometry:
    """An affine map from patch voxels to case voxels: A ``matrix`` (3, 3), b ``offset`` (3,), both float64."""

    matrix: np.ndarray
    offset: np.ndarray
    shape: tuple[int, int, int]
    """Voxels of the patch, (D, H, W); D = 1 for a 2D patch."""
    seen: Box
    """What the first crop cut out of the case; beyond it, a rotated or enlarged patch shows padding, not anatomy."""
    case_shape: tuple[int, int, int]

    @classmethod
    def from_crop(cls, lower: Any, shape: Any, case_shape: Any) -> "PatchGeometry":
        """Return the geometry of a crop whose first voxel is case voxel ``lower``, which may lie outside the case."""
        shape, case_shape = _three(shape), _three(case_shape)
        first = [0] * (3 - len(lower)) + [int(n) for n in lower]
        seen = _clipped(np.array(first), np.array(first) + shape, np.zeros(3, int), np.array(case_shape))
        return cls(np.eye(3), np.array(first, dtype=np.float64), shape, seen, case_shape)

    @property
    def exact(self) -> bool:
        """Whether voxels fall on voxels, as after crops and mirrors, so that nothing is interpolated."""
        on_grid = np.abs(self.offset - np.round(self.offset)).max() < EXACT_TOLERANCE
        return bool(on_grid and np.abs(np.abs(self.matrix) - np.eye(3)).max() < EXACT_TOLERANCE)

    def then(self, matrix: np.ndarray, offset: np.ndarray, shape: Any) -> "PatchGeometry":
        """Return the geometry after a transform: new patch voxel p shows old patch voxel matrix·p + offset."""
        matrix, offset = self.matrix @ matrix, self.matrix @ offset + self.offset
        return replace(self, matrix=matrix, offset=offset, shape=_three(shape))

    def mirrored(self, axes: list[int]) -> "PatchGeometry":
        """Return the geometry after flipping some of the axes D H W = 0 1 2."""
        sign = np.ones(3)
        sign[axes] = -1
        shift = np.where(sign < 0, np.array(self.shape) - 1, 0).astype(np.float64)
        return self.then(np.diag(sign), shift, self.shape)

    @property
    def mirrored_axes(self) -> list[int]:
        """Mirrored axes of an exact patch."""
        return [axis for axis in range(3) if self.matrix[axis, axis] < 0]

    def slices_of(self, box: Box) -> Box:
        """Return where a box of the case lies in an exact patch whose mirrors are undone."""
        first = [
            round(float(self.offset[axis])) - (self.shape[axis] - 1 if axis in self.mirrored_axes else 0)
            for axis in range(3)
        ]
        d, h, w = (slice(s.start - f, s.stop - f) for s, f in zip(box, first, strict=True))
        return d, h, w

    def padded(self, part: np.ndarray) -> np.ndarray:
        """Return an unaugmented patch, (…, D, H, W), from its part within :meth:`bounding_box`; 0 beyond that."""
        patch = np.zeros((*part.shape[:-3], *self.shape), dtype=part.dtype)
        patch[(..., *self.slices_of(self.bounding_box()))] = part
        return patch

    def bounding_box(self) -> Box:
        """Return the part of the case, within :attr:`seen`, that the patch shows; empty slices if it shows none."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        at = self.matrix @ corners + self.offset[:, None]
        lower = np.floor(at.min(1) + EXACT_TOLERANCE).astype(int)
        upper = np.ceil(at.max(1) - EXACT_TOLERANCE).astype(int) + 1
        return _clipped(lower, upper, np.array([s.start for s in self.seen]), np.array([s.stop for s in self.seen]))


def _clipped(lower: np.ndarray, upper: np.ndarray, first: np.ndarray, last: np.ndarray) -> Box:
    lower, upper = np.clip(lower, first, last), np.clip(upper, first, last)
    d, h, w = (slice(int(a), int(max(a, b))) for a, b in zip(lower, upper, strict=True))
    return d, h, w


def _three(shape: Any) -> tuple[int, int, int]:
    sizes = [int(n) for n in shape]
    d, h, w = [1] * (3 - len(sizes)) + sizes
    return d, h, w


class SpatialTransformWithGeometry(SpatialTransform):
    """nnU-Net's SpatialTransform, which carries a sample's ``geometry`` along."""

    def apply(self, data_dict: dict, **params: Any) -> dict:
        """nnU-Net transforms image and segmentation here; the geometry is composed too."""
        geometry = data_dict.get("geometry")
        if geometry is not None:
            data_dict["geometry"] = self._compose(geometry, data_dict["image"].shape[1:], params)
        return super().apply(data_dict, **params)

    def _compose(self, geometry: PatchGeometry, old_shape: Any, params: dict) -> PatchGeometry:
        new_shape = [int(n) for n in self.patch_size]
        if params["elastic_offsets"] is not None:
            raise ValueError("elastic deformation is not affine: a PatchGeometry cannot follow it")
        center = params["center_location_in_pixels"]
        dims = len(new_shape)
        matrix, offset = np.eye(3), np.zeros(3)
        if params["grid"] is None:
            # crop_tensor: the new patch's first voxel lies at floor(centre) − size // 2 of the old one
            start = [math.floor(c) - n // 2 for c, n in zip(center, new_shape, strict=True)]
            offset[3 - dims :] = start
        else:
            # old index = affine·(p − (new−1)/2) + (old−1)/2 + (centre − old/2): both grids are centred on voxel centres
            affine = np.eye(dims) if params["affine"] is None else np.asarray(params["affine"])
            old, new = np.array(old_shape, dtype=np.float64), np.array(new_shape, dtype=np.float64)
            shift = np.array(center) - old / 2
            matrix[3 - dims :, 3 - dims :] = affine
            offset[3 - dims :] = (old - 1) / 2 + shift - affine @ ((new - 1) / 2)
        # a transform of fewer dimensions (nnU-Net's dummy 2D augmentation) leaves the first axis alone
        kept = list(geometry.shape[: 3 - dims])
        return geometry.then(matrix, offset, [*kept, *new_shape])


class MirrorTransformWithGeometry(MirrorTransform):
    """nnU-Net's MirrorTransform, which carries a sample's ``geometry`` along."""

    def apply(self, data_dict: dict, **params: Any) -> dict:
        """nnU-Net flips image and segmentation here; the geometry is mirrored too."""
        geometry = data_dict.get("geometry")
        if geometry is not None and params["axes"]:
            first = 3 - (data_dict["image"].ndim - 1)
            data_dict["geometry"] = geometry.mirrored([first + axis for axis in params["axes"]])
        return super().apply(data_dict, **params)


_WITH_GEOMETRY = {SpatialTransform: SpatialTransformWithGeometry, MirrorTransform: MirrorTransformWithGeometry}


def carry_geometry(transform: BasicTransform) -> BasicTransform:
    """Make nnU-Net's transforms carry geometry, in place, and return them.

    We exchange an object's class rather than build a new object: whatever nnU-Net has set on its transforms stays.
    """
    if isinstance(transform, ComposeTransforms):
        for part in transform.transforms:
            carry_geometry(part)
    elif isinstance(transform, RandomTransform):
        carry_geometry(transform.transform)
    elif type(transform) in _WITH_GEOMETRY:
        transform.__class__ = _WITH_GEOMETRY[type(transform)]
    return transform


def patch_to_case(geometry: PatchGeometry, box: Box) -> np.ndarray:
    """Return the map from positions in a patch to positions in a box of its case, normalised as for ``grid_sample``.

    It is (3, 4) float64 in x y z order; −1 and 1 are the centres of the outermost voxels (``align_corners=True``).
    """
    lower, size = _extent(box)
    return _normalised(geometry.matrix, geometry.offset - lower, np.array(geometry.shape), size)


def case_to_patch(geometry: PatchGeometry, box: Box) -> np.ndarray:
    """Inverse of :func:`patch_to_case`; positions that the patch does not show lie outside [−1, 1]."""
    lower, size = _extent(box)
    inverse = np.linalg.inv(geometry.matrix)
    return _normalised(inverse, inverse @ (lower - geometry.offset), size, np.array(geometry.shape))


def _extent(box: Box) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s.start for s in box]), np.array([s.stop - s.start for s in box])


def _normalised(matrix: np.ndarray, offset: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Convert y = matrix·x + offset, from ``source`` to ``target`` voxels, to grids from −1 to 1."""
    half = (source - 1) / 2
    # an axis of one voxel has no extent: with scale 1 the voxel itself lies at −1 and its neighbour at 1
    scale = 2 / np.maximum(target - 1, 1)
    linear = scale[:, None] * matrix * half
    shift = scale * (matrix @ half + offset) - 1
    return np.concatenate((linear[::-1, ::-1], shift[::-1, None]), axis=1)
