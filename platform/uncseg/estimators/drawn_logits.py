"""Draws of heteroscedastic logits, z + sigma·e: e is normal noise, and the network predicts log sigma²."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from uncseg.estimators.moments import class_probabilities
from uncseg.tasks.outputs import Output

DRAWS_PER_PASS = 4
"""Number of draws in each pass of an estimator that takes several passes."""
MAX_LOG_VARIANCE = 10.0
"""Largest |log sigma²| that counts, so that sigma lies between 0.007 and 148."""


def _sigma(log_variance: Tensor) -> Tensor:
    return (0.5 * log_variance.float().clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)).exp()


def expected_likelihood_logits(z: Tensor, log_variance: Tensor, samples: int, output: Output) -> Tensor:
    """Return the logits of the mean probability over draws: their cross-entropy is Kendall and Gal's equation 12.

    They are (B, n + 1, …) with ``labels``, (B, n, …) with ``regions``; float32, with gradients to ``z``, (B, n, …), and
    to the log-variance of all of them, (B, 1, …). With ``labels``, the background's logit is the constant 0. torch's
    global generator draws the noise.
    """
    z, sigma = z.float(), _sigma(log_variance)
    drawn = [z + sigma * torch.randn_like(z) for _ in range(samples)]
    if output == "regions":
        return _mean_log([F.logsigmoid(d) for d in drawn]) - _mean_log([F.logsigmoid(-d) for d in drawn])
    return _mean_log([F.pad(d, [0, 0] * (d.ndim - 2) + [1, 0]).log_softmax(1) for d in drawn])


def _mean_log(logs: list[Tensor]) -> Tensor:
    return torch.stack(logs).logsumexp(0) - math.log(len(logs))


def sample_logits(
    logits: Tensor, log_variance: Tensor, samples: int, output: Output, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the probabilities of logits drawn around a prediction, independently for each voxel.

    The logits are (n + 1, …) with ``labels``, background first, and (n, …) with ``regions``; their log-variance is (…).
    The noise is drawn on the CPU.
    """
    z, sigma = logits.float(), _sigma(log_variance)
    first = 0 if output == "regions" else 1
    for _ in range(samples):
        noise = torch.randn(z[first:].shape, generator=generator).to(z)
        yield class_probabilities(torch.cat((z[:first], z[first:] + sigma * noise)), output)


def mean_of_draws(logits: Tensor, log_variance: Tensor, output: Output, generator: torch.Generator) -> Tensor:
    """Return the mean probability over DRAWS_PER_PASS draws; arguments as in :func:`sample_logits`.

    All passes must use the same generator: equal draws would not average out over passes.
    """
    return torch.stack(list(sample_logits(logits, log_variance, DRAWS_PER_PASS, output, generator))).mean(0)
