"""TransBTS: a convolutional encoder and decoder with a transformer between them (Wang et al., MICCAI 2021).

Written from the paper, arXiv 2103.04430. Axes: B batch, C channel, D H W voxels, N tokens.
"""

from collections.abc import Sequence

import torch
from torch import nn

from uncseg.config.backbones import TransBts
from uncseg.method.network.backbone import Backbone

STRIDE = 8
"""Voxels per token along each axis: three halvings."""
GROUPS = 8
"""Groups of each group norm."""
BLOCKS = (1, 2, 2, 4)
"""Residual blocks of the encoder per resolution."""


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Return norm, rectifier and 3³ convolution."""
    return [nn.GroupNorm(GROUPS, inputs), nn.ReLU(inplace=True), nn.Conv3d(inputs, outputs, 3, padding=1)]


class ResidualBlock(nn.Module):
    """Norm, rectifier and 3³ convolution, twice, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, D, H, W) to the same shape."""
        out: torch.Tensor = x + self.layers(x)
        return out


class TransformerLayer(nn.Module):
    """Norm and self-attention without bias, norm and feed-forward network, each beside the identity."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.after_attention = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (B, N, width) to the same shape."""
        batch, number, width = tokens.shape
        parts = self.queries_keys_values(self.before_attention(tokens))
        # to queries, keys and values, each (B, heads, N, width / heads)
        split = parts.reshape(batch, number, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*split.unbind(0))
        tokens = tokens + self.after_attention(attended.transpose(1, 2).reshape(batch, number, width))
        out: torch.Tensor = tokens + self.feed_forward(tokens)
        return out


class Rise(nn.Module):
    """One resolution of the decoder: half the channels, twice the size, joined with the encoder's features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.fewer = nn.Conv3d(channels, half, 1)
        self.larger = nn.ConvTranspose3d(half, half, 2, stride=2)
        self.joined = nn.Conv3d(channels, half, 1)
        self.block = ResidualBlock(half)

    def forward(self, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        """Map (B, C, D, H, W) and (B, C / 2, 2D, 2H, 2W) to the shape of the second."""
        out: torch.Tensor = self.block(self.joined(torch.cat((self.larger(self.fewer(x)), beside), dim=1)))
        return out


class TransBTS(nn.Module, Backbone):
    """The network.

    With the defaults, 4 input and 4 output channels and patches of 128³ it has the published 32,987,588 parameters.
    262,656 of them are a linear map of the tokens. The authors' network holds this map beside the convolution that
    makes the tokens, and never runs it. Here it follows that convolution: the network can learn the same functions,
    and every parameter has a gradient. There are two more differences: the authors' network computes the last norm of
    the tokens and does not read it, and it has dropout at fixed rates, where here ``model.dropout`` alone decides.

    A patch has a multiple of 8 voxels along each axis, always the same: each token has a learned position.
    """

    def __init__(self, inputs: int, outputs: int, patch: Sequence[int], settings: TransBts) -> None:
        super().__init__()
        base, width = settings.base_features, settings.embedding
        self.grid = tuple(n // STRIDE for n in patch)
        self.first = nn.Conv3d(inputs, base, 3, padding=1)
        channels = [base * 2**level for level in range(len(BLOCKS))]
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(c) for _ in range(blocks)))
            for c, blocks in zip(channels, BLOCKS, strict=True)
        )
        self.halvings = nn.ModuleList(nn.Conv3d(c, 2 * c, 3, stride=2, padding=1) for c in channels[:-1])
        lowest = channels[-1]
        self.into_tokens = nn.Sequential(*_convolution(lowest, width))
        self.token_map = nn.Linear(width, width)
        tokens = self.grid[0] * self.grid[1] * self.grid[2]
        self.positions = nn.Parameter(torch.zeros(1, tokens, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.transformer = nn.Sequential(
            *(TransformerLayer(width, settings.heads, settings.hidden) for _ in range(settings.layers)),
            nn.LayerNorm(width),
        )
        self.out_of_tokens = nn.Sequential(
            nn.Conv3d(width, lowest, 3, padding=1),
            *_convolution(lowest, lowest),
            nn.GroupNorm(GROUPS, lowest),
            nn.ReLU(inplace=True),
        )
        self.lowest = ResidualBlock(lowest)
        self.rises = nn.ModuleList(Rise(c) for c in reversed(channels[1:]))
        self.output = nn.Conv3d(base, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, D, H, W) to (B, outputs, D, H, W)."""
        x, beside = self.first(x), []
        for level, blocks in enumerate(self.encoder):
            x = blocks(x)
            if level < len(self.halvings):
                beside.append(x)
                x = self.halvings[level](x)
        tokens = self.token_map(self.into_tokens(x).flatten(2).transpose(1, 2))
        tokens = self.transformer(tokens + self.positions)
        x = self.lowest(self.out_of_tokens(tokens.transpose(1, 2).unflatten(2, self.grid)))
        for rise, features in zip(self.rises, reversed(beside), strict=True):
            x = rise(x, features)
        out: torch.Tensor = self.output(x)
        return out

    @property
    def output_layer(self) -> nn.Module:
        """The convolution that makes the outputs."""
        return self.output

    @property
    def around_bottleneck(self) -> list[nn.Module]:
        """The encoder's last blocks, the block after the transformer, and the decoder's first."""
        return [self.encoder[-1], self.lowest, self.rises[0]]


build = TransBTS
