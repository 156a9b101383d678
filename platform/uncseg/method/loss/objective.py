"""The sum of the loss terms, which a training step makes smaller."""

from itertools import groupby

import torch

from uncseg.method.loss.terms import TERMS, Step
from uncseg.method.settings import TrainerSettings


def warmup_factor(epoch: int, warmup_epochs: int) -> float:
    """Return the share of the uncertainty terms' weight in an epoch (counted from 0): linear from 0 to 1, then 1."""
    return 1.0 if warmup_epochs == 0 else min(1.0, epoch / warmup_epochs)


def total_loss(settings: TrainerSettings, epoch: int, step: Step) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss, and it and its terms by name, such as ``loss_seg``. To be called outside autocast.

    Args:
        settings: the trainer's.
        epoch: counted from 0, for the warm-up.
        step: the batch's outputs and targets.
    """
    values = {term: term.value(step) for term in TERMS if term.used(settings)}
    loss: torch.Tensor | float = 0.0
    for warmed_up, terms in groupby(values, lambda term: term.warmed_up):
        part = sum(weight * values[term] for term in terms if (weight := term.weight(settings)) is not None)
        loss = loss + (warmup_factor(epoch, settings.loss.warmup_epochs) * part if warmed_up else part)
    assert isinstance(loss, torch.Tensor)
    return loss, {f"loss_{term.name}": value for term, value in values.items()} | {"loss": loss}
