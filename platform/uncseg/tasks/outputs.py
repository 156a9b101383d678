"""What the channels of a network's segmentation mean, by the task and ``model.output``."""

from dataclasses import dataclass
from typing import Literal

from uncseg.tasks.rules import own_labels
from uncseg.tasks.task import Task

Output = Literal["labels", "regions"]
"""Channels are labels, of which each voxel has one (softmax), or regions, each for itself (sigmoid)."""


@dataclass(frozen=True)
class Outputs:
    """The channels of a segmentation.

    Args:
        kind: what they are. Labels have the background in front.
        labels: number of labels, without the background.
        regions: numbers of the labels of each region, in the order of the task.
        main: number of the main region among them, from 0.
    """

    kind: Output
    labels: int
    regions: tuple[tuple[int, ...], ...]
    main: int

    @classmethod
    def of(cls, task: Task, kind: Output) -> "Outputs":
        """Return the outputs of a network for a task."""
        regions = task.numbers
        return cls(kind, len(task.labels), tuple(regions.values()), list(regions).index(task.main_region))

    @property
    def logits(self) -> int:
        """Number of logits that are trained: one per label or region. The background's is always 0."""
        return self.labels if self.kind == "labels" else len(self.regions)

    @property
    def channels(self) -> int:
        """Number of channels that nnU-Net sees: the logits, and with labels the background."""
        return self.logits + (self.kind == "labels")

    @property
    def main_channels(self) -> list[int] | slice:
        """The channels whose probabilities add up to that of the main region; a slice where they are neighbours."""
        if self.kind == "regions":
            return slice(self.main, self.main + 1)
        numbers = sorted(self.regions[self.main])
        together = numbers == list(range(numbers[0], numbers[-1] + 1))
        return slice(numbers[0], numbers[-1] + 1) if together else numbers


def drawn_labels(task: Task) -> tuple[int, ...]:
    """Return the label that each region gives its voxels when regions are drawn one over the other, in their order.

    nnU-Net calls it ``regions_class_order``. The task has passed :func:`~uncseg.tasks.rules.problems_of_drawing`.
    """
    return tuple(task.labels[labels[0]] for labels in own_labels(task).values())
