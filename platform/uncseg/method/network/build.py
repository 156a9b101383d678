"""From the settings to a network: a backbone, and what its outputs mean."""

from typing import Any

from torch import nn

from uncseg.config.sections import Model
from uncseg.estimators.mc_dropout import add_dropout
from uncseg.method.network.backbone import around_bottleneck, build_backbone, output_layer
from uncseg.method.network.error_network import build_error_network
from uncseg.method.network.uncertainty_network import (
    BACKBONE_CHANNELS,
    HeteroscedasticNetwork,
    MaskedUncertaintyNetwork,
    detach_head,
)


def build_network(
    model: Model, plans_manager: Any, configuration_manager: Any, inputs: int, outputs: int, deep_supervision: bool
) -> nn.Module:
    """A network with fresh weights; plain where the settings ask for neither head nor log-variance.

    Args:
        model: what it is.
        plans_manager, configuration_manager: nnU-Net's.
        inputs: channels of the images.
        outputs: channels of a plain network.
        deep_supervision: give outputs of lower resolutions too, while it is on.
    """
    if model.error_network is not None:
        return build_error_network(model, plans_manager, configuration_manager, inputs, outputs)
    channels = BACKBONE_CHANNELS if model.uncertainty or model.heteroscedastic else outputs
    backbone = build_backbone(model, plans_manager, configuration_manager, inputs, channels, deep_supervision)
    if model.dropout > 0:
        add_dropout(around_bottleneck(backbone), model.dropout)
    if model.heteroscedastic:
        return HeteroscedasticNetwork(backbone, model.output, model.logit_samples)
    if not model.uncertainty:
        return backbone
    if model.detached:
        detach_head(output_layer(backbone))
    return MaskedUncertaintyNetwork(backbone, model.output)
