"""The network: a backbone with four output channels, z1, z2, z3 and u.

Axes: B batch, C channel, D H W voxels in nnU-Net's order (2D: H W). With ``output: labels``, z1..z3 are the logits of
NCR, ED, ET, and the background's logit is 0; with ``output: regions`` they are the sigmoid logits of WT, TC, ET.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from uncseg.estimators.drawn_logits import expected_likelihood_logits
from uncseg.estimators.moments import Output

SEGMENTATION_LOGITS = 3
BACKBONE_CHANNELS = SEGMENTATION_LOGITS + 1


def with_background(z: torch.Tensor) -> torch.Tensor:
    """Prepend the background's logit, always 0: (B, 3, …) to (B, 4, …).

    A shift common to all classes does not change the softmax, so a free logit of the background would add nothing.
    """
    return torch.cat((torch.zeros_like(z[:, :1]), z), dim=1)


def wt_probability(logits: torch.Tensor, output: Output) -> torch.Tensor:
    """Return the probability of the whole tumour, (B, 1, …) float32 in [0, 1], from (B, 4 or 3, …) by ``output``."""
    if output == "regions":
        return logits[:, :1].float().sigmoid()
    # 1 − p(background) loses all digits where p is near 1; the sum of the tumour classes does not
    return logits.float().softmax(1)[:, 1:].sum(1, keepdim=True)


def max_probability(logits: torch.Tensor, output: Output) -> torch.Tensor:
    """Return the probability of the decision, (B, 1, …) float32: of the most likely class, or of WT against not WT."""
    if output == "regions":
        p = wt_probability(logits, output)
        return torch.maximum(p, 1 - p)
    return logits.float().softmax(1).amax(1, keepdim=True)


def predicted_regions(logits: torch.Tensor, output: Output) -> torch.Tensor:
    """Return nnU-Net's decision as WT, TC, ET, (B, 3, …) bool: argmax over labels, or probability > 0.5."""
    if output == "regions":
        return logits > 0
    # argmax by comparisons, where the first of equals wins too: argmax itself takes longer than the whole loss
    background, ncr, ed, et = logits.split(1, dim=1)
    is_et = et > torch.maximum(background, torch.maximum(ncr, ed))
    is_ncr = (ncr > background) & (ncr >= torch.maximum(ed, et))
    is_ed = (ed > torch.maximum(background, ncr)) & (ed >= et)
    return torch.cat((is_ncr | is_ed | is_et, is_ncr | is_et, is_et), dim=1)


def reference_regions(target: torch.Tensor, output: Output) -> torch.Tensor:
    """Return WT, TC, ET of a target, (B, 3, …) bool, given as labels (B, 1, …) or regions (B, 3, …)."""
    if output == "regions":
        return target[:, :3] > 0
    return torch.cat((target > 0, (target == 1) | (target == 3), target == 3), dim=1)


def full_resolution(output: Any) -> torch.Tensor:
    """Return the first of a network's outputs with deep supervision, or the only one without."""
    tensor = output[0] if isinstance(output, list | tuple) else output
    assert isinstance(tensor, torch.Tensor)
    return tensor


class MaskedUncertaintyNetwork(nn.Module):
    """A backbone with 4 output channels, read as a segmentation and an uncertainty map.

    ``forward(x)`` returns what nnU-Net expects of its networks: (B, 4, …) logits with ``labels``, (B, 3, …) with
    ``regions``, as a list from full to lowest resolution while deep supervision is switched on. So a trained folder
    stays a valid nnU-Net model folder. ``forward(x, uncertainty=True)`` returns ``(logits, u)``. It is a flag of
    ``forward`` because wrappers (DistributedDataParallel, torch.compile) see no other method.
    """

    map_name = "uncertainty"
    """Name of the map that :meth:`as_map` makes of u."""

    def __init__(self, backbone: nn.Module, output: Output) -> None:
        super().__init__()
        self.backbone = backbone
        self.output = output

    @property
    def decoder(self) -> nn.Module:
        """The part on which nnU-Net switches deep supervision on and off."""
        decoder = self.backbone.decoder
        assert isinstance(decoder, nn.Module)
        return decoder

    @staticmethod
    def as_map(u: torch.Tensor) -> torch.Tensor:
        """Return what a sliding window averages: sigmoid(u), float32."""
        return u.float().sigmoid()

    def _logits(self, output: torch.Tensor) -> torch.Tensor:
        z = output[:, :SEGMENTATION_LOGITS]
        return with_background(z) if self.output == "labels" else z

    def forward(self, x: torch.Tensor, uncertainty: bool = False):  # type: ignore[no-untyped-def]
        """Return segmentation logits, or ``(logits, u)`` with u the full-resolution logit of the map, (B, 1, …)."""
        output = self.backbone(x)
        deep = isinstance(output, list | tuple)
        logits = [self._logits(o) for o in output] if deep else self._logits(output)
        if not uncertainty:
            return logits
        return logits, (output[0] if deep else output)[:, SEGMENTATION_LOGITS:]


def detach_head(output_layer: nn.Module) -> None:
    """Let the last channel of the output layer, u, train its own weights alone, and not the features that it reads."""
    output_layer.register_forward_hook(_with_detached_u)


def _with_detached_u(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    weight, bias = layer.weight[SEGMENTATION_LOGITS:], layer.bias[SEGMENTATION_LOGITS:]  # type: ignore[index]
    convolve = F.conv3d if output.ndim == 5 else F.conv2d
    u = convolve(inputs[0].detach(), weight, bias)
    return torch.cat((output[:, :SEGMENTATION_LOGITS], u), dim=1)


class HeteroscedasticNetwork(MaskedUncertaintyNetwork):
    """A backbone whose fourth output channel is the log-variance of the logits (Kendall and Gal 2017).

    In training, ``forward(x)`` returns the logits of the mean probability over ``samples`` of the logits, at every
    resolution: nnU-Net's loss of these is the loss of Kendall and Gal. Otherwise it returns z1..z3, as any network.
    """

    map_name = "log_variance"

    def __init__(self, backbone: nn.Module, output: Output, samples: int) -> None:
        super().__init__(backbone, output)
        self.samples = samples

    @staticmethod
    def as_map(u: torch.Tensor) -> torch.Tensor:
        """Return the log-variance, float32."""
        return u.float()

    def _logits(self, output: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super()._logits(output)
        with torch.autocast(output.device.type, enabled=False):
            z, log_variance = output[:, :SEGMENTATION_LOGITS], output[:, SEGMENTATION_LOGITS:]
            return expected_likelihood_logits(z, log_variance, self.samples, self.output)
