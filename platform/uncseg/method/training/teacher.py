"""A teacher: a copy of the network whose weights are averaged over the steps (Tarvainen and Valpola 2017).

Its expected error is what the uncertainty head may learn in place of the case memory.
"""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.uncertainty_network import Output, full_resolution, unwrapped, wt_probability


class Teacher:
    """The average of a network's weights, w ← decay·w + (1 − decay)·w of the network; the first step's are taken whole.

    In eval mode always and without gradients.

    Args:
        network: the one that trains; may be compiled or wrapped for several processes.
        output: what its logits mean.
        decay: share of the average that stays in a step, in [0, 1).
    """

    def __init__(self, network: nn.Module, output: Output, decay: float) -> None:
        self.output = output
        self.network = AveragedModel(unwrapped(network), multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.network.requires_grad_(False).eval()

    def follow(self, network: nn.Module) -> None:
        """Take in the weights after one more step."""
        self.network.update_parameters(unwrapped(network))

    @torch.no_grad()
    def expected_error(self, data: torch.Tensor, reference_wt: torch.Tensor) -> Reading:
        """|p(WT) − reference WT|, (B, 1, …) in [0, 1], known everywhere.

        Args:
            data: (B, C, …), in the precision of the surrounding autocast.
            reference_wt: (B, 1, …) bool.
        """
        p_wt = wt_probability(full_resolution(self.network(data)), self.output)
        error = (p_wt - reference_wt.float()).abs()
        return Reading({"error": error}, torch.ones_like(error))

    def state(self) -> dict[str, Any]:
        """Plain tensors."""
        return self.network.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """The way back of :meth:`state`."""
        self.network.load_state_dict(state)
