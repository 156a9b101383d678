"""Predictive entropy of one pass."""

import torch

from uncseg.estimators.moments import entropy
from uncseg.estimators.one_pass import OnePass


def predictive_entropy(prediction: OnePass) -> torch.Tensor:
    """Return the entropy of tumour against no tumour in bits; a function of p·(1 − p), so it ranks voxels alike."""
    return entropy(prediction.p_wt)
