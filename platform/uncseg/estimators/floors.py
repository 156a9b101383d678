"""Floors: maps that need no training. A method that does not beat a floor has shown nothing."""

import torch
from torch.nn import functional as F

from uncseg.estimators.one_pass import OnePass

BORDER_REACH_VOXELS = 8


def min_p(prediction: OnePass) -> torch.Tensor:
    """Return min(p, 1 − p) of the main region: P(failure) of the likelier decision, if p is taken at its word."""
    return torch.minimum(prediction.p_main, 1 - prediction.p_main)


def one_minus_p(prediction: OnePass) -> torch.Tensor:
    """Return 1 − p(main region): inside the reference, a voxel fails exactly where it is predicted outside."""
    return 1 - prediction.p_main


def one_minus_max(prediction: OnePass) -> torch.Tensor:
    """Return 1 − the probability of the decision taken.

    It is no floor for failures of the main region: it also counts doubt among the labels within the region.
    """
    return 1 - prediction.max_probability


def border_distance(prediction: OnePass) -> torch.Tensor:
    """Return the closeness to the main region's predicted border: 1 at its voxels, falling by 1/8 per voxel to 0.

    Distances are in voxels of the grid in use with the 26-neighbour step (chessboard distance), which windowed
    maxima give on any device. The map is 0 everywhere if nothing is predicted.
    """
    inside = prediction.predicted_main.float()
    pool = F.max_pool3d if inside.ndim == 5 else F.max_pool2d
    # the border is made of the voxels on either side that touch the other side
    closeness = pool(inside, 3, 1, 1) + pool(1 - inside, 3, 1, 1) - 1
    near = closeness
    for _ in range(BORDER_REACH_VOXELS - 1):
        near = pool(near, 3, 1, 1)
        closeness = closeness + near
    return closeness / BORDER_REACH_VOXELS


def best_constant(error: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return each sample's weighted mean error everywhere, (B, 1, …): the best constant; its RMSD is the error's sd."""
    e, m = error.float().flatten(1), weights.float().flatten(1)
    mean = (m * e).sum(1) / m.sum(1).clamp(min=1)
    return mean.reshape(-1, *[1] * (error.ndim - 1)).expand_as(error)
