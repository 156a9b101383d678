"""Features of a voxel for trees or a perceptron: probabilities, decisions and images, there and around it.

All is on the preprocessed grid; scales and distances are in its voxels.
"""

import numpy as np
from scipy import ndimage

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


def image_features(images: np.ndarray) -> np.ndarray:
    """Return the features that all regions share, (F, D, H, W) float32, from images of shape (C, D, H, W)."""
    found = []
    for image in images.astype(np.float32):
        found += [image, *(ndimage.gaussian_filter(image, scale) for scale in IMAGE_SCALES)]
    return np.stack(found)


def region_features(logits: np.ndarray, decisions: np.ndarray, region: int) -> np.ndarray:
    """Return the features of one region, (F, D, H, W) float32.

    They are margin, side and their product, as calibrated p takes them; the other regions' logits; logit and decision
    blurred; the distance to the region's border, positive inside; and the logarithm of the size of its connected part.

    Args:
        logits, decisions: of all regions, (R, D, H, W).
        region: its number.
    """
    logit, chosen = logits[region].astype(np.float32), decisions[region]
    margin, side = np.where(chosen, logit, -logit), chosen.astype(np.float32)
    found = [margin, side, margin * side, *np.delete(logits, region, axis=0).astype(np.float32)]
    for scale in SCALES:
        found += [ndimage.gaussian_filter(logit, scale), ndimage.gaussian_filter(side, scale)]
    return np.stack([*found, _distance(chosen), _size(chosen)]).astype(np.float32)


def _distance(chosen: np.ndarray) -> np.ndarray:
    if chosen.all() or not chosen.any():
        return np.full(chosen.shape, FARTHEST if chosen.any() else -FARTHEST, np.float32)
    inside = ndimage.distance_transform_edt(chosen) - ndimage.distance_transform_edt(~chosen)
    return np.asarray(inside.clip(-FARTHEST, FARTHEST), np.float32)


def _size(chosen: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(chosen)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(np.log1p(ndimage.maximum_filter(sizes[parts], REACH)), np.float32)


def without_images(features: np.ndarray, channels: int) -> np.ndarray:
    """Return the features, (N, F), without those of the images, the last ones."""
    return features[:, : features.shape[1] - of_images(channels)]
