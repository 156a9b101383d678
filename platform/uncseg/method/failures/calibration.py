"""Calibrated p: how likely a decision is wrong, by its margin and its side alone.

P(wrong) = sigmoid(a + b·m + c·s + d·m·s), with the margin m of :func:`~uncseg.method.failures.margins.margin`, and
s = 1 where the region is chosen, else 0: Platt's scaling (1999) for each side of the decision. It needs no training of
a network and no further pass. The four numbers of a fold are fitted on cases of the other folds, each predicted by the
network that did not see it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from uncseg.method.failures.margins import margin

LEAST_OF_EACH = 20
"""Right and wrong decisions that a fit needs of each; with fewer the margin is taken at its word."""
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class Calibration:
    """The four numbers of a region."""

    intercept: float
    margin: float
    side: float
    both: float

    def logit(self, logits: torch.Tensor, decisions: torch.Tensor) -> torch.Tensor:
        """Return the logit of P(the decision is wrong); the tensors are as in :func:`margin`."""
        m, s = margin(logits, decisions), decisions.to(logits.dtype)
        return self.intercept + self.margin * m + self.side * s + self.both * m * s


AT_ITS_WORD = Calibration(0.0, -1.0, 0.0, 0.0)
"""P(wrong) = 1 − p where the region is chosen, and p elsewhere."""


def fit_calibration(logits: np.ndarray, decisions: np.ndarray, wrong: np.ndarray) -> Calibration:
    """Fit the numbers by maximum likelihood, without a penalty.

    Args:
        logits: of p, (N,).
        decisions: bool, (N,).
        wrong: whether each decision is wrong, bool, (N,).

    Returns:
        :data:`AT_ITS_WORD` where fewer than 20 decisions are wrong, or right.
    """
    if min(np.count_nonzero(wrong), np.count_nonzero(~wrong)) < LEAST_OF_EACH:
        return AT_ITS_WORD
    m, s = np.where(decisions, logits, -logits).astype(np.float64), decisions.astype(np.float64)
    columns = np.stack([m, s, m * s], axis=1)
    if len(np.unique(s)) < 2:  # one side alone: its numbers serve both
        columns[:, 1:] = 0
    fitted = LogisticRegression(C=np.inf, max_iter=MOST_ITERATIONS, tol=1e-8).fit(columns, wrong)
    return Calibration(float(fitted.intercept_[0]), *map(float, fitted.coef_[0]))


def calibrated_logits(
    calibrations: Sequence[Calibration], logits: torch.Tensor, decisions: torch.Tensor
) -> torch.Tensor:
    """Return the logit of P(wrong) of each region, (…, R, D, H, W): the fourth axis from the end counts regions."""
    parts = zip(calibrations, logits.unbind(-4), decisions.unbind(-4), strict=True)
    return torch.stack([calibration.logit(*part) for calibration, *part in parts], dim=-4)
