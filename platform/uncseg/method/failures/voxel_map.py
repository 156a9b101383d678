"""Maps by what was learnt from features of single voxels: boosted trees, or a perceptron."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from uncseg.method.failures.calibration import Calibration
from uncseg.method.failures.voxel_features import image_features, region_features

VOXELS_TOGETHER = 500_000
"""Voxels whose features are gathered at a time."""


class VoxelLearner(Protocol):
    """Knows of a region what calibrated p does not."""

    def added(self, features: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Return what is added to the logit of calibrated p, (N,) float32, from features (N, F) and decisions (N,)."""
        ...


@dataclass(frozen=True)
class Asked:
    """The part of a map that is wanted; the rest need not be computed."""

    region: int | None = None
    """None: all of them."""
    voxels: np.ndarray | None = None
    """bool, (D, H, W); None: all of them."""


EVERYTHING = Asked()


def voxel_map(
    learners: Sequence[VoxelLearner | None],
    calibrations: Sequence[Calibration],
    images: np.ndarray,
    logits: np.ndarray,
    decisions: np.ndarray,
    sees_images: bool,
    asked: Asked = EVERYTHING,
) -> np.ndarray:
    """Return P(wrong) of each region's decision, (R, D, H, W) float32.

    Where all images are 0, beyond the head, and where nothing is asked for, calibrated p stands alone.

    Args:
        learners, calibrations: of each region; None: there is no more than calibrated p.
        images: (C, D, H, W).
        logits, decisions: of the regions, (R, D, H, W).
        sees_images: whether features of the images were learnt from as well.
        asked: the part of it that is wanted.
    """
    shared = image_features(images) if sees_images else np.zeros((0, *images.shape[1:]), np.float32)
    wanted = (np.asarray(images) != 0).any(0) | decisions.any(0)
    where = np.flatnonzero(wanted if asked.voxels is None else wanted & asked.voxels)
    found = []
    for region, (learner, calibration) in enumerate(zip(learners, calibrations, strict=True)):
        chosen = decisions[region]
        start = calibration.logit(torch.from_numpy(logits[region].astype(np.float32)), torch.from_numpy(chosen))
        total = start.numpy().astype(np.float32).ravel()
        if learner is not None and asked.region in (None, region):
            own = np.concatenate([region_features(logits, decisions, region), shared]).reshape(-1, total.size)
            for part in np.array_split(where, max(1, -(-len(where) // VOXELS_TOGETHER))):
                total[part] += learner.added(np.ascontiguousarray(own[:, part].T), chosen.ravel()[part])
        found.append(torch.from_numpy(total).sigmoid().numpy().reshape(chosen.shape))
    return np.stack(found)
