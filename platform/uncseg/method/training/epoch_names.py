"""The names of the metrics that a fold reports every epoch, and those that are read once at its end, without torch."""

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from uncseg.config.experiment import Experiment
from uncseg.config.training_sections import PROTOCOLS
from uncseg.estimators.registry import ESTIMATORS, HEAD, LEARNT, ORACLE
from uncseg.method.settings import TrainerSettings, warmup_factor
from uncseg.metric_keys import SKIPPED_BATCHES, SKIPPED_BY_LOSS_SCALE, SKIPPED_STEPS, epoch_key
from uncseg.tasks.task import Task

SIDES = ("training", "validation")
"""The two kinds of cases of a fold, each with an error memory of its own."""
STEPS = tuple(
    f"uncertainty/memory/{name}_{protocol}"
    for protocol in PROTOCOLS
    for name in ("mean_error_train", "visited_share", "mean_error_val")
)
"""Means over the steps of any epoch, beside the terms of the loss and the maps."""


def _patch_dice(trainer: Any, regions: slice) -> float:
    """Return the mean over regions of nnU-Net's Dice over all validation patches of the epoch; NaN without any."""
    dice = np.asarray(trainer.logger.get_value("dice_per_class_or_region", step=-1))[regions]
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")


def _bytes_per_case(trainer: Any, side: str) -> float:
    return float(trainer.memories[side].bytes_per_case)


END_OF_EPOCH: Mapping[str, Callable[[Any], float]] = {
    "val_patch/loss_seg": lambda trainer: trainer.logger.get_value("val_losses", step=-1),
    SKIPPED_STEPS: lambda trainer: trainer.skipped.steps,
    SKIPPED_BY_LOSS_SCALE: lambda trainer: trainer.skipped.steps_by_gradient if trainer.grad_scaler is not None else 0,
    SKIPPED_BATCHES: lambda trainer: trainer.skipped.batches,
    "train/learning_rate": lambda trainer: trainer.optimizer.param_groups[0]["lr"],
    "train/uncertainty_warmup": lambda trainer: warmup_factor(
        trainer.current_epoch, trainer.settings.loss.warmup_epochs
    ),
    "system/training_seconds": lambda trainer: trainer.training_seconds,
    "system/epoch_seconds": lambda trainer: perf_counter() - trainer.epoch_started,
    "system/data_wait_seconds": lambda trainer: (
        trainer.dataloader_train.seconds_waited + trainer.dataloader_val.seconds_waited
    ),
    **{f"system/memory_bytes_per_case_{side}": partial(_bytes_per_case, side=side) for side in SIDES},
}
"""Metrics but Dice that are read once per epoch from a :class:`~uncseg.method.training.trainer.UncertaintyTrainer`."""


def end_of_epoch(task: Task) -> dict[str, Callable[[Any], float]]:
    """Return the metrics that are read once per epoch: the patch Dice of the task's regions, and END_OF_EPOCH."""
    dice = {
        f"val_patch/dice_{name}": partial(_patch_dice, regions=slice(i, i + 1))
        for i, name in enumerate(task.region_keys.values())
    }
    return {**dice, "val_patch/dice_mean": partial(_patch_dice, regions=slice(None)), **END_OF_EPOCH}


def epoch_metric_names(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the metrics that each fold of an experiment reports, before one has been trained.

    An epoch leaves out those for which nothing could be measured; a phantom's oracle is not among them.
    """
    settings = TrainerSettings.from_experiment(experiment)
    chosen = settings.estimators.several_pass
    maps = [
        name
        for one in ESTIMATORS.values()
        for name in one.maps
        if (one.name in chosen and not one.combines_members if one.parts else one.name not in (HEAD, ORACLE, *LEARNT))
    ]
    maps += [HEAD] if settings.model.uncertainty else []
    return (
        *(f"train/loss_{term}" for term in settings.loss_terms),
        "train/loss",
        *STEPS,
        *(epoch_key(protocol, kind, name) for protocol in PROTOCOLS for kind in ("rmsd", "corr") for name in maps),
        *(f"val_patch/failure_rate_{region}" for region in settings.task.region_keys.values()),
        *end_of_epoch(settings.task),
    )
