"""The networks that carry the outputs: those of nnU-Net's plans. Each has the outputs last, in one 1×1 convolution."""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from uncseg.sections import Model


def build_backbone(
    model: Model, plans_manager: Any, configuration_manager: Any, inputs: int, outputs: int, deep_supervision: bool
) -> nn.Module:
    """A network with fresh weights.

    Args:
        model: which.
        plans_manager, configuration_manager: nnU-Net's.
        inputs, outputs: channels.
        deep_supervision: give outputs of lower resolutions too, while it is on.
    """
    assert model.backbone == "plans"
    network = nnUNetTrainer.build_network_architecture(
        plans_manager, configuration_manager, inputs, outputs, deep_supervision
    )
    assert isinstance(network, nn.Module)
    return network


def output_layer(backbone: nn.Module) -> nn.Module:
    """The convolution that makes the full-resolution outputs from the last features."""
    layer = backbone.decoder.seg_layers[-1]  # type: ignore[union-attr, index]
    assert isinstance(layer, nn.Module)
    return layer


def around_bottleneck(backbone: nn.Module) -> list[nn.Module]:
    """The blocks before, at and after the lowest resolution, each with one tensor as its output."""
    encoder, decoder = list(backbone.encoder.stages), list(backbone.decoder.stages)  # type: ignore[union-attr, arg-type]
    return [*encoder[-2:], *decoder[:1]]
