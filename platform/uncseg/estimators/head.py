"""The uncertainty head."""

import torch


def uncertainty(u: torch.Tensor) -> torch.Tensor:
    """sigmoid(u), unmasked, float32 in [0, 1]; masks are applied where maps are compared."""
    return u.float().sigmoid()
