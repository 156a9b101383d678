"""A head that reads all stages of the decoder: what is near a voxel and what is far from it, by two layers of 3³."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from uncseg.method.network.backbone import output_layers, start_at_zero, with_features
from uncseg.method.network.residual import Residual
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork
from uncseg.tasks.outputs import Output

WIDTH = 8
"""Features of the head, few: its layers work at full resolution."""


class StagedHead(nn.Module):
    """Features of every stage, each by a convolution of single voxels and brought to full resolution, are added up."""

    def __init__(self, features: Sequence[int], flat: bool) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if flat else (nn.Conv3d, nn.InstanceNorm3d)
        self.entrances = nn.ModuleList(convolution(count, WIDTH, 1) for count in features)
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [convolution(WIDTH, WIDTH, 3, padding=1), norm(WIDTH, affine=True), nn.LeakyReLU(0.01)]
        self.layers = nn.Sequential(*layers)
        self.last = convolution(WIDTH, 1, 1)
        start_at_zero(self.last, slice(None))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (B, 1, …) at the resolution of the first features; the others may have lower ones."""
        size = features[0].shape[2:]
        mode = "bilinear" if len(size) == 2 else "trilinear"
        total = self.entrances[0](features[0])
        for entrance, stage in zip(self.entrances[1:], features[1:], strict=True):
            total = total + F.interpolate(entrance(stage), size, mode=mode)
        return self.last(self.layers(total))


class StagedHeadNetwork(MaskedUncertaintyNetwork):
    """One of nnU-Net's networks with all of its outputs, and a head that reads the stages of its decoder.

    Args:
        backbone: a network of nnU-Net's plans, built with deep supervision.
        deep_supervision: whether forward returns outputs of lower resolutions too, until nnU-Net switches it.
        detached: whether the head's loss trains the head alone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        output: Output,
        deep_supervision: bool,
        residual: Residual | None = None,
        detached: bool = False,
    ) -> None:
        super().__init__(backbone, output, residual)
        layers = output_layers(backbone)[::-1]
        self.channels = int(layers[0].out_channels)  # type: ignore[arg-type]
        features = [int(layer.in_channels) for layer in layers]  # type: ignore[arg-type]
        self.head = StagedHead(features, isinstance(layers[0], nn.Conv2d))
        self.detached = detached
        self.switch = Switch(deep_supervision)
        for layer in layers:
            layer.register_forward_hook(with_features)

    @property
    def decoder(self) -> nn.Module:
        """What nnU-Net switches deep supervision on and off at; the decoder itself always gives all outputs."""
        return self.switch

    def forward(self, x: torch.Tensor, uncertainty: bool = False) -> Any:
        """Return segmentation logits, or ``(logits, u)``, as of :class:`MaskedUncertaintyNetwork`."""
        stages = self.backbone(x)
        logits = [stage[:, : self.channels] for stage in stages]
        returned = logits if self.switch.deep_supervision else logits[0]
        if not uncertainty:
            return returned
        features = [stage[:, self.channels :] for stage in stages]
        evidence = self.head([f.detach() for f in features] if self.detached else features)
        return returned, self.u_of(logits[0], evidence)


class Switch(nn.Module):
    """Has the one attribute of a decoder that nnU-Net sets."""

    def __init__(self, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
