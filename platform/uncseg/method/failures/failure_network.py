"""The failure network: a small U-Net from images, margins and decisions to what calibrated p does not know.

logit P(wrong) = logit of calibrated p + δ. δ starts at 0, so that an untrained network is calibrated p. Where the
output is evidence for the region, δ has its sign outside the chosen region, and the other sign inside.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from torch import nn

from uncseg.method.failures.calibration import Calibration, calibrated_logits

LEAST_FEATURE_MAP = 4
LOGIT_UNIT = 4.0
"""Logits are divided by it, so that inputs of the network are of the size of normalised images."""


class FailureNetwork(nn.Module):
    """A network that judges the decisions of another one.

    Args:
        channels: of the images.
        calibrations: one for each region.
        patch: voxels along each axis of a patch; rounded up to multiples of the network's strides.
        spacing_mm: of the grid, along the axes.
        features: feature maps at full resolution, doubled at each stage.
        stages: largest number of resolutions.
        sees_images: whether it reads the images, or the margins and decisions alone.
        evidence: for the region, or for the failure of the decision.
    """

    def __init__(
        self,
        channels: int,
        calibrations: Sequence[Calibration],
        patch: Sequence[int],
        spacing_mm: Sequence[float],
        features: int,
        stages: int,
        sees_images: bool = True,
        evidence: Literal["failure", "region"] = "failure",
    ) -> None:
        super().__init__()
        self.calibrations = tuple(calibrations)
        self.sees_images, self.evidence = sees_images, evidence
        regions = len(self.calibrations)
        props = get_pool_and_conv_props(spacing_mm, patch, LEAST_FEATURE_MAP, stages - 1)
        strides, kernels = (part[:stages] for part in props[1:3])
        total = [math.prod(lengths) for lengths in zip(*strides, strict=True)]
        self.patch = tuple(-(-length // stride) * stride for length, stride in zip(patch, total, strict=True))
        self.network = PlainConvUNet(
            input_channels=2 * regions + channels * sees_images,
            n_stages=len(strides),
            features_per_stage=[features * 2**stage for stage in range(len(strides))],
            conv_op=nn.Conv3d,
            kernel_sizes=kernels,
            strides=strides,
            n_conv_per_stage=[1, *[2] * (len(strides) - 1)],
            num_classes=regions,
            n_conv_per_stage_decoder=[2] * (len(strides) - 1),
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )
        for weight in self.network.decoder.seg_layers[-1].parameters():
            nn.init.zeros_(weight)

    def forward(self, images: torch.Tensor, logits: torch.Tensor, decisions: torch.Tensor) -> torch.Tensor:
        """Return the logit of P(wrong) of each region, (B, R, d, h, w) float32.

        Args:
            images: (B, C, d, h, w).
            logits: of the regions' probabilities, (B, R, d, h, w), within ±9.2.
            decisions: whether each region is chosen, bool, (B, R, d, h, w).
        """
        told = [logits / LOGIT_UNIT, decisions.to(logits.dtype)]
        delta = self.network(torch.cat([images, *told] if self.sees_images else told, dim=1))
        if self.evidence == "region":
            delta = torch.where(decisions, -delta, delta)
        return calibrated_logits(self.calibrations, logits.float(), decisions) + delta.float()
