"""Training of a failure network: binary cross-entropy on whether decisions of the other folds' networks are wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from uncseg.config.failures import Failures
from uncseg.errors import ProblemsFound
from uncseg.files import whole_file
from uncseg.method.checkpoints import load_torch_file
from uncseg.method.failures.failure_cases import Batch, FailureCase, draw_batch
from uncseg.method.failures.failure_network import FailureNetwork

LARGEST_GRADIENT = 12.0
POLYNOMIAL = 0.9
LEAST_VOXELS = 50
"""Union masks of fewer voxels weigh as if they had so many."""
KEYS = ("source", "step", "network_weights", "optimizer_state", "losses")
"""What a checkpoint of a training holds."""


def failure_loss(network: FailureNetwork, batch: Batch) -> torch.Tensor:
    """Return the weighted cross-entropy per voxel of the union mask, the mean over regions, ()."""
    found = network(batch.images, batch.logits, batch.decisions)
    losses = F.binary_cross_entropy_with_logits(found, batch.wrong, reduction="none") * batch.weights
    near = (batch.weights == 1).sum((0, 2, 3, 4)).clamp(min=LEAST_VOXELS)
    return (losses.sum((0, 2, 3, 4)) / near).mean()


@dataclass
class FailureTraining:
    """The training of one network; each step draws from random numbers of its own, so it goes on after any step.

    Args:
        network: with fresh weights, on the device that computes.
        settings: how it is trained.
        seed: of the patches.
        source: digest of all that it is trained from; a checkpoint of another training is not used.
    """

    network: FailureNetwork
    settings: Failures
    seed: int
    source: str

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.settings.initial_lr, weight_decay=self.settings.weight_decay
        )
        self.losses: list[float] = []
        """Of each step."""

    def run(
        self, cases: Sequence[FailureCase], checkpoint: Path, on_step: Callable[[int, float], None] = lambda *_: None
    ) -> None:
        """Train to the last step, from a whole checkpoint of the same training if there is one."""
        self._resume(checkpoint)
        self.network.train()
        while len(self.losses) < self.settings.steps:
            step = len(self.losses)
            self.losses.append(self._step(cases, step))
            on_step(step, self.losses[-1])
            if (step + 1) % self.settings.checkpoint_every == 0:
                self._save(checkpoint)

    def _step(self, cases: Sequence[FailureCase], step: int) -> float:
        random, settings = np.random.default_rng([self.seed, step]), self.settings
        drawn = draw_batch(cases, self.network.patch, settings.batch_size, random, settings.outside)
        device = next(self.network.parameters()).device
        batch = Batch(**{name: tensor.to(device) for name, tensor in vars(drawn).items()})
        for group in self.optimizer.param_groups:
            group["lr"] = settings.initial_lr * (1 - step / settings.steps) ** POLYNOMIAL
        self.optimizer.zero_grad(set_to_none=True)
        loss = failure_loss(self.network, batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss of the failure network is not finite at step {step}; set `failures.initial_lr` lower"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        return loss.item()

    def _save(self, checkpoint: Path) -> None:
        content = {
            "source": self.source,
            "step": len(self.losses),
            "network_weights": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "losses": self.losses,
        }
        with whole_file(checkpoint) as temporary:
            torch.save(content, temporary)

    def _resume(self, checkpoint: Path) -> None:
        if not checkpoint.is_file():
            return
        try:
            content: dict[str, Any] = load_torch_file(checkpoint, KEYS)
        except ProblemsFound:  # damaged: its steps are trained again
            return
        if content["source"] == self.source:
            self.network.load_state_dict(content["network_weights"])
            self.optimizer.load_state_dict(content["optimizer_state"])
            self.losses = list(content["losses"])
