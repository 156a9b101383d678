"""Variance baselines of the paper (compute_prediction_variance)."""

import torch


def var1shot(p_wt: torch.Tensor) -> torch.Tensor:
    """4·p·(1 − p) of one visit, in [0, 1]: a Bernoulli variance, scaled to reach 1 at p = 1/2.

    ``variance_stable`` is the error memory's average of this, under the name ``variance``.
    """
    return 4 * p_wt * (1 - p_wt)
