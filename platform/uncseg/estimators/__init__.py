"""Ways to get an uncertainty map, one a file. All return values in [0, 1]."""

import torch

from uncseg.estimators.entropy import predictive_entropy
from uncseg.estimators.floors import best_constant, border_distance, one_minus_max, one_minus_p
from uncseg.estimators.head import uncertainty
from uncseg.estimators.oracle import failure_probability
from uncseg.estimators.variance import var1shot
from uncseg.names import HEAD, ORACLE


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
    maps |= {
        "variance_stable": variance_stable,
        "var1shot": var1shot(p_wt),
        "entropy": predictive_entropy(p_wt),
        "one_minus_p": one_minus_p(p_wt),
        "one_minus_max": one_minus_max(max_probability),
        "border_distance": border_distance(predicted_wt),
    }
    if q is not None:
        maps[ORACLE] = failure_probability(q, predicted_wt)
    return maps


__all__ = ["best_constant", "estimate_all"]
