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
from uncseg.method.training.error_sources import Visit
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

    def fails(
        self, logits: torch.Tensor, target: torch.Tensor, predicted: torch.Tensor, reference: torch.Tensor
    ) -> torch.Tensor:
        """Return where a visit fails, (B, 1, …) bool; with shifted labels inside the reference alone.

        Args:
            logits, target: of the network with its background first, and labels, (B, 1, …).
            predicted, reference: the main region's, (B, 1, …) bool.
        """
        if not self.differences.shifted_labels:
            return predicted != reference
        return (logits[:, 1:].argmax(1, keepdim=True) != target) & reference

    def failure(self, visit: Visit) -> torch.Tensor:
        """Return what is kept of a visit's failure, (B, 1, …) in [0, 1]."""
        return self._around(self._inside(visit.failure, visit))

    def variance(self, visit: Visit, outputs: Outputs) -> torch.Tensor:
        """Return what is kept of a visit's variance, (B, 1, …) float32: 4·p·(1 − p) of the main region.

        Across the channels it is large where the network is certain of a class.
        """
        return self._around(self._inside(self._of_visit(visit, outputs), visit))

    def shown_variance(self, visit: Visit, outputs: Outputs) -> torch.Tensor | None:
        """Return the variance of a visit that is compared with the memory; None: 4·p·(1 − p), as it is."""
        differs = self.differences
        if not (differs.inside_reference or differs.pooled or differs.compressed or differs.variance_of_channels):
            return None
        variance = self._inside(self._of_visit(visit, outputs), visit)
        if differs.compressed:
            variance = _around_its_mean(variance, visit.masks["reference"].float()).sigmoid()
        return self._around(variance)

    def compared(self, reading: Reading, visit: Visit) -> Reading:
        """Return what maps are compared with; compressed, sigmoid(E − mean E), near 1/2 in the reference."""
        if not self.differences.compressed:
            return reading
        inside = visit.masks["reference"] * reading.visited
        values = {name: _around_its_mean(value, inside).sigmoid() for name, value in reading.values.items()}
        return Reading(values, reading.visited)

    def _inside(self, values: torch.Tensor, visit: Visit) -> torch.Tensor:
        return values * visit.masks["reference"] if self.differences.inside_reference else values

    def _around(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over the 3³ voxels around each (2D: 3²), if they are pooled."""
        if not self.differences.pooled:
            return values
        pool = F.avg_pool3d if values.ndim == 5 else F.avg_pool2d
        return pool(values, POOLED, stride=1, padding=POOLED // 2, count_include_pad=False)

    def _of_visit(self, visit: Visit, outputs: Outputs) -> torch.Tensor:
        logits = visit.logits.float()
        if self.differences.variance_of_channels:
            # the paper's network has no channel for the background: a class's logit is against it
            p = (logits if outputs.kind == "regions" else logits[:, 1:] - logits[:, :1]).sigmoid()
            if p.shape[1] == 1:  # a single one: it and all else
                p = torch.cat((p, 1 - p), dim=1)
            return p.var(1, keepdim=True)
        p = main_probability(logits, outputs)
        return 4 * p * (1 - p)


def keeping_of(settings: Memory) -> Keeping:
    """Return how an experiment keeps its memories."""
    return Keeping(settings.published or OURS)


def _around_its_mean(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    return values - (values * inside).sum() / inside.sum().clamp(min=1)
