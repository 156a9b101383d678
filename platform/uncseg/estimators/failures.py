"""What is learnt from the failures of other folds' networks; ``method/failures`` says how."""

import torch

from uncseg.estimators.one_pass import OnePass


def calibrated(prediction: OnePass) -> torch.Tensor:
    """Return P(the decision is wrong) by calibrated p: the margin and the side of the decision alone."""
    assert prediction.calibrated is not None
    return prediction.calibrated


def cross_fitted(prediction: OnePass) -> torch.Tensor:
    """Return P(the decision is wrong) by what the folds have learnt beyond calibrated p."""
    assert prediction.cross_fitted is not None
    return prediction.cross_fitted
