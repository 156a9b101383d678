"""Deep ensemble: networks of the same training fold that differ in their seeds (Lakshminarayanan et al. 2017)."""

from collections.abc import Iterator

import torch

from uncseg.estimators.several_passes import Passes


def sample(passes: Passes) -> Iterator[torch.Tensor]:
    """Yield each member's probabilities of a case that none of them has seen, (C, …)."""
    for number in range(len(passes.networks)):
        yield passes.probabilities(network=number)
