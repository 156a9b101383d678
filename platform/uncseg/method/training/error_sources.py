"""What the head can learn in place of the error memory, computed anew for the patches of each training step.

The memory is kept all the same, and validation compares with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.logits import main_probability
from uncseg.method.network.uncertainty_network import full_resolution
from uncseg.tasks.outputs import Outputs


@dataclass(frozen=True)
class Visit:
    """A training step's patches, and what the network makes of them."""

    data: torch.Tensor
    """Images, (B, channels, …), augmented."""
    logits: torch.Tensor
    """At full resolution, (B, C, …), without a gradient."""
    predicted: torch.Tensor
    """The decision on each region, (B, R, …) bool."""
    reference: torch.Tensor
    """(B, R, …) bool"""
    failure: torch.Tensor
    """1 where the decision on the main region is wrong, else 0, (B, 1, …); NaN where the logits are."""
    masks: Mapping[str, torch.Tensor]
    """Those of both protocols, (B, 1, …) bool."""
    learned_in: str
    """The protocol in whose mask the head learns."""

    @property
    def mask(self) -> torch.Tensor:
        """Where the head learns, (B, 1, …) bool; elsewhere the error may be anything in [0, 1]."""
        return self.masks[self.learned_in]


class ErrorSource(Protocol):
    """Says how wrong the decisions of a visit are."""

    def expected_error(self, visit: Visit) -> Reading:
        """Return the error of the main region's decisions, (B, 1, …) in [0, 1], and where it is known."""
        ...


def known_everywhere(error: torch.Tensor) -> Reading:
    """Return a reading of an error that is known in every voxel."""
    return Reading({"error": error.float()}, torch.ones_like(error, dtype=torch.float32))


class OwnFailure:
    """The failure of the visit alone, 0 or 1. A head that is trained with a proper score learns how likely it is."""

    def expected_error(self, visit: Visit) -> Reading:
        """Return the failure."""
        return known_everywhere(visit.failure)


class Members:
    """Finished networks of the same fold, whose mean p doubts the network's own decision: |mean p − decision|.

    They were trained on the same cases, so that they doubt less here than on new ones.
    """

    def __init__(self, networks: Sequence[nn.Module], outputs: Outputs) -> None:
        self.networks = [network.requires_grad_(False).eval() for network in networks]
        self.outputs = outputs

    @torch.no_grad()
    def expected_error(self, visit: Visit) -> Reading:
        """Return |mean p − decision|."""
        p = [main_probability(full_resolution(network(visit.data)), self.outputs) for network in self.networks]
        decision = visit.predicted[:, self.outputs.main : self.outputs.main + 1]
        return known_everywhere((torch.stack(p).mean(0) - decision.float()).abs())
