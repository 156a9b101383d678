"""Several predictions of one case by an estimator, and the maps that their moments give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from uncseg.estimators.drawn_logits import mean_of_draws
from uncseg.estimators.moments import Moments, class_probabilities
from uncseg.estimators.registry import ESTIMATORS
from uncseg.tasks.outputs import Outputs


@dataclass(frozen=True)
class FoldNetwork:
    """A trained network, and how it predicts."""

    module: nn.Module
    predict: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
    """Images (channels, …) to logits (C, …), and to the log-variance (…) of a heteroscedastic network's logits."""


@dataclass(frozen=True)
class Passes:
    """A case, the networks that may predict it, and the settings of the estimator that does."""

    images: torch.Tensor
    """(channels, D, H, W), 0 outside the brain; for an estimator that takes batches also (B, channels, …)."""
    networks: Sequence[FoldNetwork]
    """Networks of the same fold; more than one if the estimator combines members."""
    outputs: Outputs
    """What the channels of the logits mean."""
    settings: Any
    """The estimator's own section of the experiment."""
    mirrored_axes: Sequence[int]
    """Axes of ``images`` that the networks have seen mirrored."""
    noise: torch.Generator
    """Noise of heteroscedastic logits. It goes on from pass to pass: equal draws would never average out."""

    def probabilities(self, images: torch.Tensor | None = None, network: int = 0) -> torch.Tensor:
        """Predict the case, or other images, in one pass, with the mean over draws of noisy logits: (C, …) float32."""
        logits, log_variance = self.networks[network].predict(self.images if images is None else images)
        if log_variance is None:
            return class_probabilities(logits, self.outputs.kind)
        return mean_of_draws(logits, log_variance, self.outputs.kind, self.noise)


def estimate_several_passes(name: str, passes: Passes) -> tuple[Moments, dict[str, torch.Tensor]]:
    """Return the moments of an estimator's predictions of a case, and its maps by name, (…) in [0, 1]."""
    estimator, moments = ESTIMATORS[name], Moments(passes.outputs)
    for probabilities in estimator.resolve()(passes):
        moments.add(probabilities)
    parts = moments.maps()
    return moments, {name: parts[part] for name, part in zip(estimator.maps, estimator.parts, strict=True)}
