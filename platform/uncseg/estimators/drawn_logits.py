"""Heteroscedastic logits: z + sigma·e, e normal, sigma the network's own (Kendall and Gal 2017; Nair et al. 2020)."""

import math
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from uncseg.estimators.moments import Output, class_probabilities

DRAWS_OF_A_PASS = 4
"""Where several passes draw, each its own."""
LARGEST = 10.0
"""Of |log sigma²|: sigma between 0.007 and 148."""


def deviation(log_variance: torch.Tensor) -> torch.Tensor:
    """Sigma of the logits, float32."""
    return (0.5 * log_variance.float().clamp(-LARGEST, LARGEST)).exp()


def expected_likelihood_logits(
    z: torch.Tensor, log_variance: torch.Tensor, samples: int, output: Output
) -> torch.Tensor:
    """Logits of the mean probability over draws of the logits: a cross-entropy of them is Kendall and Gal's (12).

    Args:
        z: (B, 3, …), background being the constant 0 with ``labels``.
        log_variance: of all three, (B, 1, …).
        samples: number of draws; their noise is torch's.

    Returns:
        (B, 4, …) with ``labels``, (B, 3, …) with ``regions``; float32, with gradients to both.
    """
    z, sigma = z.float(), deviation(log_variance)
    drawn = [z + sigma * torch.randn_like(z) for _ in range(samples)]
    if output == "regions":
        return _mean_log([F.logsigmoid(d) for d in drawn]) - _mean_log([F.logsigmoid(-d) for d in drawn])
    return _mean_log([F.pad(d, [0, 0] * (d.ndim - 2) + [1, 0]).log_softmax(1) for d in drawn])


def _mean_log(logs: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(logs).logsumexp(0) - math.log(len(logs))


def sample_logits(
    logits: torch.Tensor, log_variance: torch.Tensor, samples: int, output: Output, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Probabilities of logits drawn around a prediction; voxels are drawn each for itself.

    Args:
        logits: (4, …) with ``labels``, background first, (3, …) with ``regions``.
        log_variance: (…).
        samples: number of draws.
        generator: of the noise, on the CPU.

    Yields:
        Each draw's probabilities, the shape of the logits.
    """
    sigma = deviation(log_variance)
    noisy = logits.float()
    first = 0 if output == "regions" else 1
    for _ in range(samples):
        noise = torch.randn(noisy[first:].shape, generator=generator).to(noisy)
        moved = torch.cat((noisy[:first], noisy[first:] + sigma * noise))
        yield class_probabilities(moved, output)


def mean_of_draws(
    logits: torch.Tensor, log_variance: torch.Tensor, output: Output, generator: torch.Generator
) -> torch.Tensor:
    """Mean probability over DRAWS_OF_A_PASS draws; arguments as :func:`sample_logits` takes them.

    The generator has to go on from pass to pass: equal draws would not average out over passes.
    """
    return torch.stack(list(sample_logits(logits, log_variance, DRAWS_OF_A_PASS, output, generator))).mean(0)
