"""The metrics that a fold reports every epoch, and their names, which are derived from what computes them."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np
import torch

from uncseg.config.experiment import Experiment
from uncseg.estimators.registry import ESTIMATORS
from uncseg.method.loss.objective import total_loss, warmup_factor
from uncseg.method.loss.terms import Step, protocol_masks
from uncseg.method.memory.error_memory import Reading
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.epoch_means import Sums
from uncseg.method.training.validation import REGION_NAMES, estimator_sums, failure_rates

SIDES = ("training", "validation")
"""Cases of a fold, each side with an error memory of its own."""


def training_sums(terms: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], memory: Reading) -> Sums:
    """Return ``train/TERM`` and the mean error of a training step's batch, each as (sum, weight).

    Args:
        terms: the loss and its terms by name.
        masks: of both protocols, (B, 1, …) bool.
        memory: the training cases' error memory as it was before this step.
    """
    sums = {f"train/{name}": (value, torch.ones_like(value)) for name, value in terms.items()}
    for protocol, mask in masks.items():
        weights = mask * memory.visited
        mean_error = (weights * memory.values["error"]).sum(), weights.sum()
        sums[f"uncertainty/memory/mean_error_train_{protocol}"] = mean_error
    return sums


def _patch_dice(trainer: Any) -> np.ndarray:
    """Return nnU-Net's Dice of WT, TC and ET over all validation patches of the epoch."""
    return np.asarray(trainer.logger.get_value("dice_per_class_or_region", step=-1))


def _mean_dice(trainer: Any) -> float:
    dice = _patch_dice(trainer)
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")


def _dice_of(region: int) -> Callable[[Any], float]:
    return lambda trainer: _patch_dice(trainer)[region]


def _bytes_of(side: str) -> Callable[[Any], float]:
    return lambda trainer: trainer.memories[side].bytes_per_case


END_OF_EPOCH: Mapping[str, Callable[[Any], float]] = {
    **{f"val_patch/dice_{name}": _dice_of(number) for number, name in enumerate(REGION_NAMES)},
    "val_patch/dice_mean": _mean_dice,
    "val_patch/loss_seg": lambda trainer: trainer.logger.get_value("val_losses", step=-1),
    "train/learning_rate": lambda trainer: trainer.optimizer.param_groups[0]["lr"],
    "train/uncertainty_warmup": lambda trainer: warmup_factor(
        trainer.current_epoch, trainer.settings.loss.warmup_epochs
    ),
    "system/training_seconds": lambda trainer: trainer.training_seconds,
    "system/epoch_seconds": lambda trainer: perf_counter() - trainer.epoch_started,
    "system/data_wait_seconds": lambda trainer: (
        trainer.dataloader_train.seconds_waited + trainer.dataloader_val.seconds_waited
    ),
    **{f"system/memory_bytes_per_case_{side}": _bytes_of(side) for side in SIDES},
}
"""Metrics that are read once per epoch from an :class:`~uncseg.method.training.trainer.UncertaintyTrainer`."""


def epoch_metrics(trainer: Any, means: Mapping[str, float]) -> dict[str, float]:
    """Return an epoch's metrics: the means over its steps and :data:`END_OF_EPOCH`.

    A metric for which nothing could be measured is left out.
    """
    metrics = {**means, **{name: float(read(trainer)) for name, read in END_OF_EPOCH.items()}}
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def epoch_metric_names(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the metrics that each fold of an experiment reports, before one has been trained.

    They are those of a batch of one patch of zeros. An epoch leaves out those for which nothing could be measured; a
    phantom's oracle is not among them.
    """
    settings = TrainerSettings.of(experiment)
    zeros = torch.zeros((1, 1, 2, 2, 2), requires_grad=True)
    outside = zeros > 0
    logits = torch.cat([zeros] * (3 if settings.model.output == "regions" else 4), dim=1)
    u = zeros if settings.model.uncertainty else None
    memory = Reading({"error": zeros, "variance": zeros}, zeros)
    _, terms = total_loss(settings, 0, Step(zeros.sum(), logits, u, zeros, memory, outside))
    validated = [ESTIMATORS[name] for name in settings.estimators.several_pass]
    maps = [name for estimator in validated if not estimator.combines_members for name in estimator.maps]
    sums = (
        training_sums(terms, protocol_masks(outside, outside), memory)
        | estimator_sums(logits, u, None, outside, outside, memory, settings.model.output, dict.fromkeys(maps, zeros))
        | failure_rates(outside, torch.cat([outside] * 3, dim=1))
    )
    return (*sums, *END_OF_EPOCH)
