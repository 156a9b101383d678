"""Swin UNETR, MONAI's (Hatamizadeh et al. 2022): a transformer with shifted windows as the encoder of a U-Net."""

from importlib import import_module

import torch
from torch import nn

from uncseg.config.sections import SwinUnetr
from uncseg.errors import Problem, ProblemsFound


def build_swin_unetr(inputs: int, outputs: int, settings: SwinUnetr) -> nn.Module:
    """The network with fresh weights.

    Args:
        inputs, outputs: channels.
        settings: sizes.

    Raises:
        ProblemsFound: MONAI is not installed, or einops, which it looks for only once it computes.
    """
    try:
        import_module("einops")
        from monai.networks.nets import SwinUNETR
    except ImportError as error:
        found, expected = f"no {(error.name or 'monai').partition('.')[0]}", "the package's extra with backbones"
        problem = Problem("model.backbone: swin_unetr", found, expected, "pip install 'uncseg[backbones]'")
        raise ProblemsFound("The network cannot be built.", [problem]) from error
    wanted = torch.get_default_device()
    with torch.device("cpu"):  # MONAI reads values of tensors while it builds, and those of the meta device have none
        network = SwinUNETR(
            in_channels=inputs,
            out_channels=outputs,
            feature_size=settings.feature_size,
            depths=settings.depths,
            num_heads=settings.heads,
            spatial_dims=3,
        )
    assert isinstance(network, nn.Module)
    return network.to(wanted)
