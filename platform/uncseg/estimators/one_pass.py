"""Maps that need no further pass: from a prediction, and from what is known beside it."""

from collections.abc import Collection
from dataclasses import dataclass

import torch

from uncseg.estimators.registry import ESTIMATORS


@dataclass(frozen=True)
class OnePass:
    """One pass of a network over a batch; tensors are (B, 1, …), probabilities float32 in [0, 1]."""

    p_main: torch.Tensor
    """Probability of the main region."""
    max_probability: torch.Tensor
    """Probability of the decision taken."""
    predicted_main: torch.Tensor
    """The decision on the main region, bool."""
    u: torch.Tensor | None = None
    """The head's logit; None: the network has no head."""
    variance_stable: torch.Tensor | None = None
    """The error memory's average of ``var1shot``; None: there is no memory of the case."""
    calibrated: torch.Tensor | None = None
    """P(the decision is wrong) by calibrated p; None: no other folds told how."""
    cross_fitted: torch.Tensor | None = None
    """P(the decision is wrong) by what the folds have learnt beyond that; None: nothing."""
    q: torch.Tensor | None = None
    """A phantom's rater probability; None: a real case."""


def estimate_one_pass(names: Collection[str], prediction: OnePass) -> dict[str, torch.Tensor]:
    """Return the maps of these estimators by name, (B, 1, …) in [0, 1]."""
    return {name: ESTIMATORS[name].resolve()(prediction) for name in dict.fromkeys(names)}


def estimate_all(prediction: OnePass) -> dict[str, torch.Tensor]:
    """Return every map that the prediction allows by name, without the constant, which needs the error itself."""
    known = [field for field, value in vars(prediction).items() if value is not None]
    return estimate_one_pass([e.name for e in ESTIMATORS.values() if not e.parts and e.source in known], prediction)
