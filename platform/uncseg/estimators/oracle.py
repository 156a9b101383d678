"""The oracle of phantoms: the probability of failure itself, which nobody knows for real cases."""

import torch

from uncseg.estimators.one_pass import OnePass


def failure_probability(prediction: OnePass) -> torch.Tensor:
    """Return the probability that the decision is wrong, given q, the probability that a rater calls a voxel part of
    the main region."""
    assert prediction.q is not None
    return torch.where(prediction.predicted_main, 1 - prediction.q, prediction.q)
