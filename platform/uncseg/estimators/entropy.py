"""Predictive entropy of one pass."""

import torch

from uncseg.estimators.moments import entropy


def predictive_entropy(p_wt: torch.Tensor) -> torch.Tensor:
    """Entropy of tumour against no tumour in bits, in [0, 1]; a function of p·(1 − p), so it ranks voxels alike."""
    return entropy(p_wt)
