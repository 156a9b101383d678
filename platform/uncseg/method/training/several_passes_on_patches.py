"""Estimators of several passes on validation patches, so that curves and sweeps show them while a fold trains.

They take few passes here; the out-of-fold evaluation scores them with all of their passes.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from uncseg.config.sections import Estimators
from uncseg.estimators.registry import ESTIMATORS, Samples
from uncseg.estimators.several_passes import FoldNetwork, Passes, estimate_several_passes
from uncseg.method.network.uncertainty_network import HeteroscedasticNetwork, full_resolution
from uncseg.method.nnunet_internals import unwrapped
from uncseg.tasks.outputs import Outputs


def several_pass_maps(
    network: nn.Module, data: torch.Tensor, estimators: Estimators, outputs: Outputs, axes: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Return the maps of the chosen estimators that can be validated while a fold trains, (B, 1, …) float32 in [0, 1].

    The network is in eval mode. The patches are (B, channels, …); ``axes``, counted without B, may be mirrored.
    """
    heteroscedastic = isinstance(unwrapped(network), HeteroscedasticNetwork)

    def predict(patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits, (C, B, …), and any log-variance, (B, …)."""
        if not heteroscedastic:
            return full_resolution(network(patches)).transpose(0, 1), None
        logits, log_variance = network(patches, uncertainty=True)
        return full_resolution(logits).transpose(0, 1), log_variance[:, 0]

    def predict_patch(patch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, log_variance = predict(patch[None])
        return logits[:, 0], None if log_variance is None else log_variance[0]

    noise, module = torch.Generator().manual_seed(0), unwrapped(network)
    maps: dict[str, torch.Tensor] = {}
    for name in estimators.several_pass:
        estimator, settings = ESTIMATORS[name], getattr(estimators, name)
        if estimator.combines_members:
            continue
        few = settings.on_patches() if isinstance(settings, Samples) else settings
        passes = Passes(data, [FoldNetwork(module, predict)], outputs, few, axes, noise)
        if estimator.takes_batches:
            maps |= estimate_several_passes(name, passes)[1]
        else:
            passes = replace(passes, networks=[FoldNetwork(module, predict_patch)])
            per_patch = [estimate_several_passes(name, replace(passes, images=patch))[1] for patch in data]
            maps |= {key: torch.stack([patch_maps[key] for patch_maps in per_patch]) for key in estimator.maps}
    return {name: values[:, None].float() for name, values in maps.items()}
