"""Floors: maps that need no training. A method that does not beat a floor has shown nothing."""

import torch
from torch.nn import functional as F

BORDER_REACH_VOXELS = 8


def one_minus_p(p_wt: torch.Tensor) -> torch.Tensor:
    """1 − p(WT): inside the reference, a voxel fails exactly where the model says background."""
    return 1 - p_wt


def one_minus_max(max_probability: torch.Tensor) -> torch.Tensor:
    """1 − the probability of the decision taken."""
    return 1 - max_probability


def border_distance(predicted_wt: torch.Tensor) -> torch.Tensor:
    """Closeness to the predicted WT border: 1 at the border's voxels, falling by 1/8 a voxel to 0.

    Distances are in voxels of the grid in use with the 26-neighbour step (chessboard distance), which windowed
    maxima give on any device.

    Args:
        predicted_wt: (B, 1, D, H, W) or (B, 1, H, W), bool.

    Returns:
        The same shape, float32 in [0, 1]; all 0 where nothing is predicted.
    """
    pool = F.max_pool3d if predicted_wt.ndim == 5 else F.max_pool2d
    inside = predicted_wt.float()
    # the border: voxels of either side that touch the other
    closeness = pool(inside, 3, 1, 1) + pool(1 - inside, 3, 1, 1) - 1
    near = closeness
    for _ in range(BORDER_REACH_VOXELS - 1):
        near = pool(near, 3, 1, 1)
        closeness = closeness + near
    return closeness / BORDER_REACH_VOXELS


def best_constant(error: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each sample's own weighted mean error everywhere: the strongest constant there is; its RMSD is the error's sd.

    Args:
        error, weights: (B, 1, …).
    """
    e, m = error.float().flatten(1), weights.float().flatten(1)
    mean = (m * e).sum(1) / m.sum(1).clamp(min=1)
    return mean.reshape(-1, *[1] * (error.ndim - 1)).expand_as(error)
