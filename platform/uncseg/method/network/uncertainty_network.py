"""The network: a backbone whose output channels are z1..zn and u.

Axes: B batch, C channel, D H W voxels in nnU-Net's order (2D: H W). With ``output: labels``, z1..zn are the logits of
the task's labels, and the background's logit is 0; with ``output: regions`` they are the sigmoid logits of its regions.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from uncseg.estimators.drawn_logits import expected_likelihood_logits
from uncseg.method.network.logits import with_background
from uncseg.method.network.residual import Residual
from uncseg.tasks.outputs import Output


def full_resolution(output: Any) -> torch.Tensor:
    """Return the first of a network's outputs with deep supervision, or the only one without."""
    tensor = output[0] if isinstance(output, list | tuple) else output
    assert isinstance(tensor, torch.Tensor)
    return tensor


class MaskedUncertaintyNetwork(nn.Module):
    """A backbone with output channels z1..zn and u, read as a segmentation and an uncertainty map.

    ``forward(x)`` returns what nnU-Net expects of its networks: (B, n + 1, …) logits with ``labels``, (B, n, …) with
    ``regions``, as a list from full to lowest resolution while deep supervision is switched on. So a trained folder
    stays a valid nnU-Net model folder. ``forward(x, uncertainty=True)`` returns ``(logits, u)``. It is a flag of
    ``forward`` because wrappers (DistributedDataParallel, torch.compile) see no other method.
    """

    map_name = "uncertainty"
    """Name of the map that :meth:`as_map` makes of u."""

    def __init__(self, backbone: nn.Module, output: Output, residual: Residual | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.output = output
        self.residual = residual
        """Makes u of the full-resolution logits and the head's channel; None: the channel is u."""

    @property
    def decoder(self) -> nn.Module:
        """The part on which nnU-Net switches deep supervision on and off."""
        decoder = self.backbone.decoder
        assert isinstance(decoder, nn.Module)
        return decoder

    def averaged(self, logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Return what a sliding window averages, (B, 1, …) float32, from a tile's logits and u: sigmoid(u).

        A residual head speaks of the tile's own decision, and tiles may disagree: its probability of the region is
        averaged.
        """
        failure = u.float().sigmoid()
        return failure if self.residual is None else torch.where(self.residual.decision(logits), 1 - failure, failure)

    def as_map(self, mean: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the map, (B, 1, …), from the mean over tiles of :meth:`averaged` and that of the logits."""
        return mean if self.residual is None else torch.where(self.residual.decision(logits), 1 - mean, mean)

    def _logits(self, output: torch.Tensor) -> torch.Tensor:
        z = output[:, :-1]
        return with_background(z) if self.output == "labels" else z

    def forward(self, x: torch.Tensor, uncertainty: bool = False):  # type: ignore[no-untyped-def]
        """Return segmentation logits, or ``(logits, u)`` with u the full-resolution logit of the map, (B, 1, …)."""
        output = self.backbone(x)
        deep = isinstance(output, list | tuple)
        logits = [self._logits(o) for o in output] if deep else self._logits(output)
        if not uncertainty:
            return logits
        return logits, self.u_of(full_resolution(logits), full_resolution(output)[:, -1:])

    def u_of(self, logits: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Return u from the full-resolution logits and what the head gives, (B, 1, …)."""
        if self.residual is None:
            return head
        return self.residual(logits, head)


def detach_head(output_layer: nn.Module) -> None:
    """Let the last channel of the output layer, u, train its own weights alone, and not the features that it reads."""
    output_layer.register_forward_hook(_with_detached_u)


def _with_detached_u(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    weight, bias = layer.weight[-1:], layer.bias[-1:]  # type: ignore[index]
    convolve = F.conv3d if output.ndim == 5 else F.conv2d
    u = convolve(inputs[0].detach(), weight, bias)
    return torch.cat((output[:, :-1], u), dim=1)


class HeteroscedasticNetwork(MaskedUncertaintyNetwork):
    """A backbone whose last output channel is the log-variance of the logits (Kendall and Gal 2017).

    In training, ``forward(x)`` returns the logits of the mean probability over ``samples`` of the logits, at every
    resolution: nnU-Net's loss of these is the loss of Kendall and Gal. Otherwise it returns z1..zn, as any network.
    """

    map_name = "log_variance"

    def __init__(self, backbone: nn.Module, output: Output, samples: int) -> None:
        super().__init__(backbone, output)
        self.samples = samples

    def averaged(self, logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the log-variance, float32."""
        return u.float()

    def _logits(self, output: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super()._logits(output)
        with torch.autocast(output.device.type, enabled=False):
            z, log_variance = output[:, :-1], output[:, -1:]
            return expected_likelihood_logits(z, log_variance, self.samples, self.output)
