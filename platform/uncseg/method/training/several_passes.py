"""The estimators of several passes on validation patches, so that curves and sweeps know them while a fold trains.

They take few samples there; what they are worth with all of them is said by the out-of-fold evaluation.
"""

from collections.abc import Sequence

import torch
from torch import nn

from uncseg.config.sections import Estimators
from uncseg.estimators.augmentation import sample_changes
from uncseg.estimators.heteroscedastic import combine_draws, mean_of_draws, sample_logits
from uncseg.estimators.mc_dropout import sample_dropout
from uncseg.estimators.moments import Moments, class_probabilities
from uncseg.method.network.uncertainty_network import HeteroscedasticNetwork, Output, full_resolution, unwrapped

MOST_SAMPLES = 4
"""Passes of a validation patch."""


def sampled_maps(
    network: nn.Module, data: torch.Tensor, estimators: Estimators, output: Output, axes: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Maps of the chosen estimators but the ensemble, whose members are trained apart.

    Args:
        network: in eval mode.
        data: patches, (B, channels, …).
        estimators: their settings.
        output: what the logits mean.
        axes: of (channels, …) that may be mirrored.

    Returns:
        Each (B, 1, …) float32 in [0, 1], by name.
    """

    noise = torch.Generator().manual_seed(0)

    def probabilities(patches: torch.Tensor) -> torch.Tensor:
        """Classes first: (C, B, …)."""
        if not isinstance(unwrapped(network), HeteroscedasticNetwork):
            return class_probabilities(full_resolution(network(patches)).transpose(0, 1), output)
        logits, log_variance = network(patches, uncertainty=True)
        of_voxels = full_resolution(logits).transpose(0, 1), log_variance[:, 0]
        return mean_of_draws(*of_voxels, output, noise)

    maps: dict[str, torch.Tensor] = {}
    if estimators.mc_dropout is not None:
        samples = min(estimators.mc_dropout.samples, MOST_SAMPLES)
        seed = estimators.mc_dropout.seed
        maps |= sample_dropout(unwrapped(network), lambda: probabilities(data), samples, seed, Moments(output))
    if estimators.heteroscedastic is not None:
        logits, log_variance = network(data, uncertainty=True)
        generator = torch.Generator().manual_seed(estimators.heteroscedastic.seed)
        of_voxels = full_resolution(logits).transpose(0, 1), log_variance[:, 0]
        draws = sample_logits(*of_voxels, estimators.heteroscedastic.samples, output, generator)
        maps |= combine_draws(draws, Moments(output))
    if estimators.augmentation is not None:
        few = estimators.augmentation.model_copy(
            update={"samples": min(estimators.augmentation.samples, MOST_SAMPLES), "rotation_degrees": 0, "scaling": 0}
        )
        of_patches = [
            sample_changes(lambda patch: probabilities(patch[None])[:, 0], patch, axes, few, Moments(output))
            for patch in data
        ]
        maps |= {name: torch.stack([one[name] for one in of_patches]) for name in of_patches[0]}
    return {name: values[:, None].float() for name, values in maps.items()}
