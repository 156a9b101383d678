"""Weights averaged over the steps of the last epochs, as the final network's (Izmailov et al. 2018)."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from uncseg.method.nnunet_internals import unwrapped


class AveragedWeights:
    """The mean of a network's weights after each step of the last epochs.

    Args:
        network: may be compiled or wrapped for several processes.
        first_epoch: the first one whose steps count.
    """

    def __init__(self, network: nn.Module, first_epoch: int) -> None:
        self.average = AveragedModel(unwrapped(network)).requires_grad_(False)
        self.first_epoch = first_epoch

    def follow(self, network: nn.Module, epoch: int) -> None:
        """Take in the weights after a step of an epoch (from 0)."""
        if epoch >= self.first_epoch:
            self.average.update_parameters(unwrapped(network))

    @torch.no_grad()
    def replace(self, network: nn.Module) -> None:
        """Give the network the mean, if any step counted."""
        if self.average.n_averaged > 0:
            for weight, mean in zip(unwrapped(network).parameters(), self.average.module.parameters(), strict=True):
                weight.copy_(mean)
