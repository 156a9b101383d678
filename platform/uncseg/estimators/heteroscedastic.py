"""Heteroscedastic logits: draws around one pass's logits (Kendall and Gal 2017; Nair et al. 2020)."""

from collections.abc import Iterator

import torch

from uncseg.estimators.drawn_logits import sample_logits
from uncseg.estimators.several_passes import Passes


def sample(passes: Passes) -> Iterator[torch.Tensor]:
    """Yield the probabilities of logits drawn around those of one pass, (C, …)."""
    logits, log_variance = passes.networks[0].predict(passes.images)
    assert log_variance is not None
    generator = torch.Generator().manual_seed(passes.settings.seed)
    yield from sample_logits(logits, log_variance, passes.settings.samples, passes.outputs.kind, generator)
