"""The networks that carry the outputs: those of nnU-Net's plans, Swin UNETR, TransBTS.

Each makes its outputs last, with one 1×1 convolution.
"""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from uncseg.config.rules import PATCH_MULTIPLES, SWIN_NOTE, fitting_patch
from uncseg.config.sections import Model
from uncseg.errors import Problem, ProblemsFound
from uncseg.method.network.backbones.swin_unetr import build_swin_unetr
from uncseg.method.network.backbones.transbts import TransBTS


def build_backbone(
    model: Model, plans_manager: Any, configuration_manager: Any, inputs: int, outputs: int, deep_supervision: bool
) -> nn.Module:
    """A network with fresh weights.

    Args:
        model: which.
        plans_manager, configuration_manager: nnU-Net's.
        inputs, outputs: channels.
        deep_supervision: give outputs of lower resolutions too, while it is on; only the plans' networks can.

    Raises:
        ProblemsFound: the patch does not fit, or a package is missing.
    """
    if model.backbone == "plans":
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, inputs, outputs, deep_supervision
        )
        assert isinstance(network, nn.Module)
        return network
    patch = [int(n) for n in configuration_manager.patch_size]
    _require_fitting(patch, model.backbone)
    if model.backbone == "swin_unetr":
        return build_swin_unetr(inputs, outputs, model.swin_unetr)
    return TransBTS(inputs, outputs, patch, model.transbts)


def _require_fitting(patch: list[int], backbone: str) -> None:
    """nnU-Net plans patches for its own networks."""
    nearest = fitting_patch(patch, backbone)
    if len(patch) == 3 and nearest == patch:
        return
    expected = f"three multiples of {PATCH_MULTIPLES[backbone]}, for model.backbone: {backbone}"
    expected += SWIN_NOTE if backbone == "swin_unetr" else ""
    problem = Problem("plan.patch_size", f"{patch}, as planned", expected, f"write plan.patch_size: {nearest}")
    raise ProblemsFound("The network cannot be built.", [problem])


def output_layer(backbone: nn.Module) -> nn.Module:
    """The convolution that makes the full-resolution outputs from the last features."""
    if isinstance(backbone, TransBTS):
        return backbone.output
    network: Any = backbone
    layer = network.out.conv.conv if hasattr(backbone, "swinViT") else network.decoder.seg_layers[-1]
    assert isinstance(layer, nn.Module)
    return layer


def around_bottleneck(backbone: nn.Module) -> list[nn.Module]:
    """The blocks before, at and after the lowest resolution, each with one tensor as its output."""
    if isinstance(backbone, TransBTS):
        return [backbone.encoder[-1], backbone.lowest, backbone.rises[0]]
    if hasattr(backbone, "swinViT"):
        return [backbone.encoder4, backbone.encoder10, backbone.decoder5]  # type: ignore[list-item]
    encoder, decoder = list(backbone.encoder.stages), list(backbone.decoder.stages)  # type: ignore[union-attr, arg-type]
    return [*encoder[-2:], *decoder[:1]]


__all__ = ["around_bottleneck", "build_backbone", "output_layer"]
