"""Maps by what was learnt from features of single voxels: boosted trees, or a perceptron."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from uncseg.method.failures.calibration import Calibration
from uncseg.method.failures.voxel_features import HOST, image_features, region_features

VOXELS_TOGETHER = 16_384
"""Voxels whose features are gathered at a time: what lies in a core's cache is five times as fast."""


class VoxelLearner(Protocol):
    """Knows of a region what calibrated p does not."""

    def added(self, features: torch.Tensor, decisions: torch.Tensor) -> torch.Tensor:
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


@torch.no_grad()
def voxel_map(
    learners: Sequence[VoxelLearner | None],
    calibrations: Sequence[Calibration],
    images: np.ndarray,
    logits: np.ndarray,
    decisions: np.ndarray,
    sees_images: bool,
    asked: Asked = EVERYTHING,
    device: torch.device = HOST,
) -> np.ndarray:
    """Return P(wrong) of each region's decision, (R, D, H, W) float32.

    Where all images are 0, beyond the head, and where nothing is asked for, calibrated p stands alone.

    Args:
        learners, calibrations: of each region; None: there is no more than calibrated p.
        images: (C, D, H, W).
        logits, decisions: of the regions, (R, D, H, W).
        sees_images: whether features of the images were learnt from as well.
        asked: the part of it that is wanted.
        device: computes; perceptrons are on it.
    """
    shared = image_features(images, device).flatten(1) if sees_images else torch.zeros(0, images[0].size, device=device)
    wanted = (np.asarray(images) != 0).any(0) | decisions.any(0)
    wanted = wanted if asked.voxels is None else wanted & asked.voxels
    parts = torch.from_numpy(np.flatnonzero(wanted)).to(device).split(VOXELS_TOGETHER)
    found = []
    for region, (learner, calibration) in enumerate(zip(learners, calibrations, strict=True)):
        told = torch.from_numpy(logits[region].astype(np.float32)), torch.from_numpy(decisions[region])
        logit, chosen = (values.to(device).ravel() for values in told)
        total = calibration.logit(logit, chosen)
        if learner is not None and asked.region in (None, region):
            own = region_features(logits, decisions, region, device).flatten(1)
            for part in parts:
                features = torch.cat([own[:, part], shared[:, part]]).T
                total[part] += learner.added(features, chosen[part])
        found.append(total.sigmoid().reshape(decisions.shape[1:]).cpu().numpy())
    return np.stack(found)
