"""Ways to get an uncertainty map, one a file. All return values in [0, 1]."""

from collections.abc import Callable, Collection

import torch

from uncseg.estimators.entropy import predictive_entropy
from uncseg.estimators.floors import best_constant, border_distance, one_minus_max, one_minus_p
from uncseg.estimators.head import uncertainty
from uncseg.estimators.oracle import failure_probability
from uncseg.estimators.variance import var1shot
from uncseg.names import HEAD, ONE_PASS, ORACLE


def estimate_one_pass(
    names: Collection[str], *, p_wt: torch.Tensor, max_probability: torch.Tensor, predicted_wt: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Maps that one pass of any network gives, by name; arguments as :func:`estimate_all` takes them."""
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "var1shot": lambda: var1shot(p_wt),
        "entropy": lambda: predictive_entropy(p_wt),
        "one_minus_p": lambda: one_minus_p(p_wt),
        "one_minus_max": lambda: one_minus_max(max_probability),
        "border_distance": lambda: border_distance(predicted_wt),
    }
    return {name: ways[name]() for name in dict.fromkeys(names)}


def estimate_all(
    *,
    p_wt: torch.Tensor,
    max_probability: torch.Tensor,
    predicted_wt: torch.Tensor,
    variance_stable: torch.Tensor,
    u: torch.Tensor | None = None,
    q: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Every estimator that the inputs allow, by name, without the constant (which needs the error itself).

    All tensors (B, 1, …): probabilities float32 in [0, 1], ``predicted_wt`` bool, ``u`` the head's logit (None: no
    head), ``q`` a phantom's rater probability (None: a real case).
    """
    maps = {HEAD: uncertainty(u)} if u is not None else {}
    maps["variance_stable"] = variance_stable
    maps |= estimate_one_pass(ONE_PASS, p_wt=p_wt, max_probability=max_probability, predicted_wt=predicted_wt)
    if q is not None:
        maps[ORACLE] = failure_probability(q, predicted_wt)
    return maps


__all__ = ["best_constant", "estimate_all", "estimate_one_pass"]
