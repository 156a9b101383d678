"""A teacher: a copy of the network whose weights are averaged over the steps (Tarvainen and Valpola 2017).

The uncertainty head can learn the error that the teacher expects instead of the error memory.
"""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.logits import main_probability
from uncseg.method.network.uncertainty_network import full_resolution
from uncseg.method.nnunet_internals import unwrapped
from uncseg.method.training.error_sources import Visit, known_everywhere
from uncseg.tasks.outputs import Outputs


class Teacher(AveragedModel):
    """The average of a network's weights: average ← decay·average + (1 − decay)·weights, from the first step's weights.

    It is always in eval mode and takes no gradients. The network may be compiled or wrapped for several processes;
    ``decay``, in [0, 1), is the share of the average that stays in a step.
    """

    def __init__(self, network: nn.Module, outputs: Outputs, decay: float) -> None:
        super().__init__(unwrapped(network), multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.outputs = outputs
        self.requires_grad_(False).eval()

    def follow(self, network: nn.Module) -> None:
        """Take in the network's weights after one more step."""
        self.update_parameters(unwrapped(network))

    @torch.no_grad()
    def expected_error(self, visit: Visit) -> Reading:
        """Return |p(main region) − reference|, (B, 1, …) in [0, 1], known everywhere."""
        p_main = main_probability(full_resolution(self(visit.data)), self.outputs)
        reference_main = visit.reference[:, self.outputs.main : self.outputs.main + 1]
        return known_everywhere((p_main - reference_main.float()).abs())
