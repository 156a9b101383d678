"""From the settings to a network: a backbone, and what its outputs mean."""

from typing import Any

from torch import nn

from uncseg.method.backbones import build_backbone
from uncseg.method.network import BACKBONE_CHANNELS, MaskedUncertaintyNetwork
from uncseg.sections import Model


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
    channels = BACKBONE_CHANNELS if model.uncertainty else outputs
    backbone = build_backbone(model, plans_manager, configuration_manager, inputs, channels, deep_supervision)
    return MaskedUncertaintyNetwork(backbone, model.head) if model.uncertainty else backbone
