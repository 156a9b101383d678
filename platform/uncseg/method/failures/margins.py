"""What a decision looked like to the network that took it: its margin, and how opinions on decisions are exchanged.

A region's probability p says how likely a voxel belongs to it, the decision whether it is called so. Where nnU-Net
decides among labels, a region can be chosen with p < 1/2: its margin is negative.
"""

import numpy as np
import torch

from uncseg.method.network.logits import LARGEST_LOGIT


def clipped_logit(p: np.ndarray) -> np.ndarray:
    """Return logit p within ±9.2, float32, for probabilities in [0, 1]."""
    inside = p.astype(np.float64).clip(1e-12, 1 - 1e-12)
    return np.log(inside / (1 - inside)).clip(-LARGEST_LOGIT, LARGEST_LOGIT).astype(np.float32)


def margin(logits: torch.Tensor, decisions: torch.Tensor) -> torch.Tensor:
    """Return how far a probability lies on the side of the decision, in logits: logit p where the region is chosen,
    −logit p elsewhere.

    Args:
        logits: of p, float.
        decisions: whether the region is chosen, bool, the same shape.
    """
    return torch.where(decisions, logits, -logits)


def against_decision(p: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return |p − decision|: P(a decision is wrong), as whoever gave p sees it.

    Args:
        p: probability of the region, of the network that decided, of another, or the mean of several.
        decisions: bool, the same shape.
    """
    return np.abs(p - decisions)


def about_decisions(failure: np.ndarray, own: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Return the probability that other decisions are wrong, from the probability that one's own are.

    Args:
        failure: P(own decision is wrong), in [0, 1].
        own: the own decisions, bool.
        decisions: those that are judged, bool; all three have the same shape.
    """
    return np.where(own == decisions, failure, 1 - failure)
