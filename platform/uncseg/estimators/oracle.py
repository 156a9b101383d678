"""The oracle of phantoms: what nobody can know about real cases."""

import torch


def failure_probability(q: torch.Tensor, predicted_wt: torch.Tensor) -> torch.Tensor:
    """P(failure) of a given prediction, in [0, 1].

    Args:
        q: probability that a rater calls a voxel tumour, in [0, 1].
        predicted_wt: bool, the same shape.
    """
    return torch.where(predicted_wt, 1 - q, q)
