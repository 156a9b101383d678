"""Deep ensemble: networks of the same training fold that differ in their seeds (Lakshminarayanan et al. 2017)."""

from collections.abc import Iterable

import torch

from uncseg.estimators.moments import Moments, entropy
from uncseg.names import PARTS

MAPS = tuple(f"deep_ensemble_{part}" for part in PARTS["deep_ensemble"])


def combine_members(probabilities: Iterable[torch.Tensor], moments: Moments) -> dict[str, torch.Tensor]:
    """Combine the members' predictions of one case, which none of them has seen.

    Args:
        probabilities: of each member, (C, …).
        moments: takes them.

    Returns:
        MAPS, each (…) in [0, 1]: 4·p·(1 − p) of the mean, its split into aleatoric and epistemic as for MC dropout,
        and the entropy of the mean (Mehrtash et al. 2020).
    """
    for member in probabilities:
        moments.add(member)
    maps = (moments.total(), moments.within(), moments.between(), entropy(moments.p_wt))
    return dict(zip(MAPS, maps, strict=True))
