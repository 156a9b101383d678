"""Predictive entropy of one pass."""

import torch

from uncseg.estimators.moments import entropy
from uncseg.estimators.one_pass import OnePass


def predictive_entropy(prediction: OnePass) -> torch.Tensor:
    """Return the entropy of the main region against the rest, in bits; as a function of p·(1 − p) it ranks alike."""
    return entropy(prediction.p_main)
