"""Batches from which nothing is learned, or against which nothing is judged, counted over the processes of a fold."""

import torch

from uncseg.method.distributed_fold import sum_over_processes


class SkippedBatches:
    """What an epoch left out. Its flags stay on the device until the epoch ends, so that no step waits for them."""

    def __init__(self) -> None:
        self._training: list[torch.Tensor] = []
        self._validation: list[torch.Tensor] = []
        self.steps = self.steps_by_gradient = self.batches = self.unusable = 0

    def add_step(self, gradient_norm: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a training step by its gradient's norm and its loss, both 0-dimensional; it has no effect unless finite.

        The processes of a fold share the gradient, and each has a loss of its own.
        """
        self._training.append(torch.stack([~torch.isfinite(gradient_norm), ~torch.isfinite(loss)]))

    def add_validation(self, usable: torch.Tensor) -> None:
        """Add a validation batch by whether its predictions are finite in all processes, bool, 0-dimensional."""
        self._validation.append(~usable)

    def count_steps(self) -> None:
        """Count the training steps so far, in step with the other processes.

        ``steps`` had no effect; of these ``steps_by_gradient`` had a finite loss: with fp16, the loss scale was too
        large. ``unusable`` are the steps whose loss was not finite.
        """
        if self._training:
            skipped, unusable = (sum_over_processes(torch.stack(self._training).int()).cpu() > 0).T
            self.steps, self.unusable = int(skipped.sum()), int(unusable.sum())
            self.steps_by_gradient = int((skipped & ~unusable).sum())

    def count_batches(self) -> None:
        """Count the validation batches so far, ``batches``."""
        if self._validation:
            self.batches = int(torch.stack(self._validation).sum())
