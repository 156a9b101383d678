"""The uncertainty head."""

import torch

from uncseg.estimators.one_pass import OnePass


def uncertainty(prediction: OnePass) -> torch.Tensor:
    """Return sigmoid(u), unmasked, float32; masks are applied where maps are compared."""
    assert prediction.u is not None
    return prediction.u.float().sigmoid()
