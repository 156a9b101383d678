"""How the error memories are kept: which there are, what is written into them, and what is compared with them.

Ours is plain. ``memory.published`` keeps them as a public trainer with the paper's function names does, for the study
of the paper's figures; each of its fields is one difference.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from uncseg.config.training_sections import Memory, PublishedMemory
from uncseg.method.memory.error_memory import CPU, ErrorMemory, Reading
from uncseg.method.memory.slot_memory import SlotMemory
from uncseg.method.network.logits import main_probability
from uncseg.tasks.outputs import Outputs

OURS = PublishedMemory(**dict.fromkeys(PublishedMemory.model_fields, False))
"""No difference."""
POOLED = 3
"""Voxels along each axis over which a failure is pooled."""


@dataclass(frozen=True)
class Keeping:
    """What is written into the error memories, and how they are read."""

    differences: PublishedMemory = OURS

    def memories(self, alpha: float, device: torch.device = CPU) -> dict[str, ErrorMemory]:
        """Make those of the training cases and of the validation cases, or one for both."""
        steps = alpha, device, self.differences.smaller_step
        if self.differences.slots:
            shared = SlotMemory(("error", "variance"), *steps)
            return {"training": shared, "validation": shared}
        # the loss reads errors alone; the baseline of the variance is compared on validation cases
        return {"training": ErrorMemory(("error",), *steps), "validation": ErrorMemory(("error", "variance"), *steps)}

    def failure(self, failure: torch.Tensor) -> torch.Tensor:
        """Return what is kept of a failure, (B, 1, …) in [0, 1]; pooled, the mean of the 3³ voxels around (2D: 3²)."""
        if not self.differences.pooled:
            return failure
        pool = F.avg_pool3d if failure.ndim == 5 else F.avg_pool2d
        return pool(failure, POOLED, stride=1, padding=POOLED // 2, count_include_pad=False)

    def variance(self, logits: torch.Tensor, outputs: Outputs) -> torch.Tensor:
        """Return the variance of a visit, (B, 1, …) float32, from logits (B, C, …): 4·p·(1 − p) of the main region.

        Across the channels it is large where the network is certain.
        """
        if self.differences.variance_of_channels:
            p = logits.float().sigmoid() if outputs.kind == "regions" else logits.float().softmax(1)
            if p.shape[1] == 1:  # a single region: it and all else
                p = torch.cat((p, 1 - p), dim=1)
            return p.var(1, keepdim=True)
        p = main_probability(logits, outputs)
        return 4 * p * (1 - p)

    def compared(self, reading: Reading) -> Reading:
        """Return what maps are compared with; compressed, sigmoid(E − mean E), near 1/2 everywhere.

        The mean is that over the voxels of the patch that were visited.
        """
        if not self.differences.compressed:
            return reading
        values = {name: _around_its_mean(value, reading.visited).sigmoid() for name, value in reading.values.items()}
        return Reading(values, reading.visited)


def keeping_of(settings: Memory) -> Keeping:
    """Return how an experiment keeps its memories."""
    return Keeping(settings.published or OURS)


def _around_its_mean(values: torch.Tensor, visited: torch.Tensor) -> torch.Tensor:
    known = visited.flatten(1)
    mean = (values.flatten(1) * known).sum(1) / known.sum(1).clamp(min=1)
    return values - mean.reshape(-1, *[1] * (values.ndim - 1))
