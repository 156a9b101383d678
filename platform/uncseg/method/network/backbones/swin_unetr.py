"""Swin UNETR, MONAI's (Hatamizadeh et al. 2022): a transformer with shifted windows as the encoder of a U-Net."""

from collections.abc import Sequence
from typing import Any

import einops  # noqa: F401 - MONAI looks for it only when it first computes
import torch
from monai.networks.nets import SwinUNETR
from torch import nn

from uncseg.config.backbones import SwinUnetr
from uncseg.method.network.backbone import Backbone


class SwinUnetrBackbone(SwinUNETR, Backbone):
    """MONAI's network."""

    @property
    def output_layer(self) -> nn.Module:
        """The convolution that makes the outputs."""
        return self.out.conv.conv

    @property
    def around_bottleneck(self) -> list[nn.Module]:
        """Residual blocks of the two lowest resolutions, and the first one that rises."""
        return [self.encoder4, self.encoder10, self.decoder5]


def build(inputs: int, outputs: int, _patch: Sequence[int], settings: SwinUnetr) -> SwinUnetrBackbone:
    """Build the network with fresh weights; it takes any patch that fits."""
    sizes: dict[str, Any] = {"feature_size": settings.feature_size, "depths": settings.depths}
    device = torch.get_default_device()
    with torch.device("cpu"):  # MONAI reads values of tensors while it builds, and those of the meta device have none
        network = SwinUnetrBackbone(in_channels=inputs, out_channels=outputs, num_heads=settings.heads, **sizes)
    return network.to(device)
