"""Features of a voxel for trees or a perceptron: probabilities, decisions and images, there and around it.

All is on the preprocessed grid; scales and distances are in its voxels. Blurs are computed on the given device,
distances and sizes on the host, near the region alone.
"""

from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

HOST = torch.device("cpu")

SCALES = (1, 2, 4)
"""Standard deviations of the Gaussians that blur the region's probability and decision."""
IMAGE_SCALES = (1, 3)
"""Those that blur the images."""
FARTHEST = 20.0
"""A distance from the region's border counts at most so much."""
REACH = 5
"""Voxels within half of it take the size of the part of the region beside them."""


def of_images(channels: int) -> int:
    """Return how many features are of the images; they are the last ones."""
    return channels * (1 + len(IMAGE_SCALES))


def image_features(images: np.ndarray, device: torch.device = HOST) -> torch.Tensor:
    """Return the features that all regions share, (F, D, H, W) float32, from images of shape (C, D, H, W)."""
    found = []
    for image in torch.from_numpy(images.astype(np.float32)).to(device):
        found += [image, *(_blurred(image, scale) for scale in IMAGE_SCALES)]
    return torch.stack(found)


def region_features(
    logits: np.ndarray, decisions: np.ndarray, region: int, device: torch.device = HOST
) -> torch.Tensor:
    """Return the features of one region, (F, D, H, W) float32.

    They are margin, side and their product, as calibrated p takes them; the other regions' logits; logit and decision
    blurred; the distance to the region's border, positive inside; and the logarithm of the size of its connected part.

    Args:
        logits, decisions: of all regions, (R, D, H, W).
        region: its number.
        device: of the result.
    """
    told = torch.from_numpy(logits.astype(np.float32)).to(device)
    logit, chosen = told[region], torch.from_numpy(decisions[region]).to(device)
    margin, side = torch.where(chosen, logit, -logit), chosen.float()
    found = [margin, side, margin * side, *told[:region], *told[region + 1 :]]
    for scale in SCALES:
        found += [_blurred(logit, scale), _blurred(side, scale)]
    shape = (_distance(decisions[region]), _size(decisions[region]))
    return torch.stack([*found, *(torch.from_numpy(values).to(device) for values in shape)])


def _blurred(values: torch.Tensor, scale: int) -> torch.Tensor:
    """Return what ``scipy.ndimage.gaussian_filter`` returns, by a product of matrices per axis, which is faster."""
    for length in values.shape:  # the first axis is blurred and becomes the last one, three times
        values = torch.tensordot(values, _gaussian(length, scale).to(values.device), dims=([0], [1]))
    return values


@lru_cache(maxsize=64)
def _gaussian(length: int, scale: int) -> torch.Tensor:
    """Return the matrix that blurs a line of voxels, reflected at its ends."""
    return torch.from_numpy(ndimage.gaussian_filter1d(np.eye(length), scale, axis=0).astype(np.float32))


def _distance(chosen: np.ndarray) -> np.ndarray:
    if chosen.all() or not chosen.any():
        return np.full(chosen.shape, FARTHEST if chosen.any() else -FARTHEST, np.float32)
    box = _around(chosen, int(FARTHEST))
    near, found = chosen[box], np.full(chosen.shape, -FARTHEST, np.float32)
    inside = ndimage.distance_transform_edt(near) - ndimage.distance_transform_edt(~near)
    found[box] = inside.clip(-FARTHEST, FARTHEST)
    return found


def _size(chosen: np.ndarray) -> np.ndarray:
    found = np.zeros(chosen.shape, np.float32)
    if chosen.any():
        box = _around(chosen, REACH)
        parts, _ = ndimage.label(chosen[box])
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        found[box] = np.log1p(ndimage.maximum_filter(sizes[parts], REACH))
    return found


def _around(chosen: np.ndarray, room: int) -> tuple[slice, ...]:
    """Return the smallest box that holds all chosen voxels, and so many more on each side."""
    box = ndimage.find_objects(chosen.astype(np.uint8))[0]
    return tuple(slice(max(0, one.start - room), one.stop + room) for one in box)


def without_images(features: np.ndarray, channels: int) -> np.ndarray:
    """Return the features, (N, F), without those of the images, the last ones."""
    return features[:, : features.shape[1] - of_images(channels)]
