"""Variance baselines of the paper (compute_prediction_variance)."""

import torch

from uncseg.estimators.one_pass import OnePass


def var1shot(prediction: OnePass) -> torch.Tensor:
    """Return 4·p·(1 − p) of one visit: a Bernoulli variance, scaled to reach 1 at p = 1/2."""
    return 4 * prediction.p_main * (1 - prediction.p_main)


def variance_stable(prediction: OnePass) -> torch.Tensor:
    """Return the average of ``var1shot`` that the error memory has kept over the visits."""
    assert prediction.variance_stable is not None
    return prediction.variance_stable
