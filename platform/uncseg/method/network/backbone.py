"""The network that carries the outputs: nnU-Net's, or one of the folder ``backbones``.

It makes its outputs last, with one convolution of single voxels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from uncseg.config.training_sections import Model
from uncseg.errors import Problem, ProblemsFound
from uncseg.tasks.outputs import Outputs


class Backbone(ABC):
    """The interface of a network of volumes; ``backbones/NAME.py`` holds the network and a function that builds it.

    ``build(inputs, outputs, patch, settings)`` returns the network with fresh weights, for numbers of channels and
    patches of that many voxels along each axis.
    """

    @property
    @abstractmethod
    def output_layer(self) -> nn.Module:
        """The convolution that makes the outputs from the last features."""

    @property
    @abstractmethod
    def around_bottleneck(self) -> list[nn.Module]:
        """The blocks before, at and after the lowest resolution, each with one tensor as its output."""


@dataclass(frozen=True)
class NetworkPlan:
    """What nnU-Net plans of a network."""

    plans_manager: Any
    configuration_manager: Any
    inputs: int
    """Channels of the images."""
    outputs: int
    """Channels of a plain network."""
    meaning: Outputs
    """What they are."""
    deep_supervision: bool = False
    """Return outputs of lower resolutions too, while it is switched on; nnU-Net's networks alone can."""


def build_backbone(model: Model, plan: NetworkPlan) -> nn.Module:
    """Build a network with fresh weights.

    Raises:
        ProblemsFound: the patch does not fit, or a package is missing.
    """
    settings = model.backbone_settings
    if settings is None:
        managers = plan.plans_manager, plan.configuration_manager
        network = nnUNetTrainer.build_network_architecture(*managers, plan.inputs, plan.outputs, plan.deep_supervision)
    else:
        patch = [int(n) for n in plan.configuration_manager.patch_size]  # nnU-Net plans it for networks of its own
        nearest = settings.fitting_patch(patch)
        if len(patch) != 3 or nearest != patch:
            expected = f"three {settings.patches}, for model.backbone: {model.backbone}"
            advice = f"set `plan.patch_size` to {nearest}"
            raise _cannot_build("plan.patch_size", f"{patch}, as planned", expected, advice)
        try:
            module = import_module(f"uncseg.method.network.backbones.{model.backbone}")
        except ImportError as error:
            found, expected = f"no {(error.name or '').partition('.')[0]}", "the package's extra with backbones"
            advice = "pip install 'uncseg[backbones]'"
            raise _cannot_build(f"model.backbone: {model.backbone}", found, expected, advice) from error
        network = module.build(plan.inputs, plan.outputs, patch, settings)
    assert isinstance(network, nn.Module)
    return network


def _cannot_build(where: str, found: str, expected: str, advice: str) -> ProblemsFound:
    return ProblemsFound("The network cannot be built.", [Problem(where, found, expected, advice)])


def output_layer(backbone: nn.Module) -> nn.Module:
    """Return the convolution that makes the full-resolution outputs from the last features."""
    if isinstance(backbone, Backbone):
        return backbone.output_layer
    return backbone.decoder.seg_layers[-1]  # type: ignore


def output_layers(backbone: nn.Module) -> list[nn.Module]:
    """Return the convolutions that make the outputs, that of the full resolution last."""
    lower = getattr(getattr(backbone, "decoder", None), "seg_layers", [])
    last = output_layer(backbone)
    return [*(layer for layer in lower if layer is not last), last]


def around_bottleneck(backbone: nn.Module) -> list[nn.Module]:
    """Return the blocks before, at and after the lowest resolution, each with one tensor as its output."""
    if isinstance(backbone, Backbone):
        return backbone.around_bottleneck
    encoder, decoder = list(backbone.encoder.stages), list(backbone.decoder.stages)  # type: ignore
    return [*encoder[-2:], *decoder[:1]]


def with_features(_layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """Add what an output layer read to its output, as further channels; in an attribute it would outlive the pass."""
    return torch.cat((output, inputs[0]), dim=1)


def start_at_zero(layer: Any, channels: slice) -> None:
    """Set weights and biases of some of a convolution's outputs to 0."""
    with torch.no_grad():
        layer.weight[channels] = 0
        layer.bias[channels] = 0
