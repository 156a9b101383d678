"""The metrics that a fold reports every epoch.

To add a metric, add it to the sums of a training or a validation step and its name to ``epoch_names.STEPS``, or to
``epoch_names.END_OF_EPOCH``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from uncseg.estimators.floors import best_constant
from uncseg.estimators.one_pass import OnePass, estimate_all
from uncseg.estimators.registry import HEAD, VAR1SHOT
from uncseg.method.distributed_fold import sum_over_processes
from uncseg.method.loss.terms import per_sample_scores, with_raw_correlation
from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.logits import main_probability, max_probability
from uncseg.method.training.epoch_names import end_of_epoch
from uncseg.method.training.error_sources import Visit
from uncseg.method.training.keeping import Keeping
from uncseg.metric_keys import epoch_key
from uncseg.tasks.outputs import Outputs
from uncseg.tasks.task import Task

Sums = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""A (sum, weight) pair of 0-dimensional tensors per metric."""


class EpochMeans:
    """Weighted means over an epoch's steps.

    The sums stay on the device until the epoch ends: reading a value makes the host wait for the device.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}

    def add(self, values: Sums, usable: torch.Tensor | None = None) -> None:
        """Add (sum, weight) pairs. One that is not finite comes from an unusable batch and is left out.

        So are all pairs of a batch that is not ``usable``, bool, 0-dimensional; None: it is.
        """
        numbers = torch.stack([number.detach().double() for pair in values.values() for number in pair])
        pairs = numbers.reshape(-1, 2)
        finite = torch.isfinite(pairs).all(1, keepdim=True)
        pairs = torch.where(finite if usable is None else finite & usable, pairs, 0)
        names = tuple(values)
        self._sums[names] = self._sums[names] + pairs if names in self._sums else pairs

    def means(self) -> dict[str, float]:
        """Return the means so far over all processes of the fold; NaN where no weight was added."""
        totals: dict[str, torch.Tensor] = {}
        for names, pairs in self._sums.items():  # steps may differ in their names: only some cases have an oracle
            for name, pair in zip(names, pairs, strict=True):
                totals[name] = totals[name] + pair if name in totals else pair
        if not totals:
            return {}
        joint = sum_over_processes(torch.stack(list(totals.values()))).cpu()
        return dict(zip(totals, (joint[:, 0] / joint[:, 1]).tolist(), strict=True))


def training_sums(terms: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], memory: Reading) -> Sums:
    """Return ``train/TERM`` and the mean error of a training step's batch, each as (sum, weight).

    The masks are those of both protocols, (B, 1, …) bool; the error memory is read before this step.
    """
    sums = {f"train/{name}": (value, torch.ones_like(value)) for name, value in terms.items()}
    for protocol, mask in masks.items():
        weights = mask * memory.visited
        mean_error = (weights * memory.values["error"]).sum(), weights.sum()
        sums[f"uncertainty/memory/mean_error_train_{protocol}"] = mean_error
    return sums


def _valid_sum(values: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.where(valid, values, torch.zeros_like(values)).sum(), valid.sum()


def estimator_sums(
    visit: Visit,
    u: torch.Tensor | None,
    q: torch.Tensor | None,
    memory: Reading,
    outputs: Outputs,
    several_passes: Mapping[str, torch.Tensor],
    keeping: Keeping,
) -> Sums:
    """Return ``uncertainty/PROTOCOL/{rmsd,corr}_ema/ESTIMATOR`` of a batch as (sum, number of valid samples).

    ``u`` is the uncertainty map's logit, ``q`` a phantom's rater probability, both (B, 1, …); ``memory`` is the
    validation memory before this visit, or as ``keeping`` says.
    """
    logits, main = visit.logits, slice(outputs.main, outputs.main + 1)
    prediction = OnePass(
        p_main=main_probability(logits, outputs),
        max_probability=max_probability(logits, outputs),
        predicted_main=visit.predicted[:, main],
        u=u,
        variance_stable=memory.values["variance"],
        q=q,
    )
    maps = dict(several_passes) | estimate_all(prediction)
    if (variance := keeping.shown_variance(visit, outputs)) is not None:
        maps[VAR1SHOT] = variance
    error = memory.values["error"]
    sums: Sums = {}
    for protocol, mask in visit.masks.items():
        weights = mask * memory.visited
        for name, estimate in (maps | {"constant": best_constant(error, weights)}).items():
            scores = per_sample_scores(estimate, error, weights)
            if name == HEAD and u is not None and keeping.differences.raw_logit:
                scores = with_raw_correlation(scores, u, error, weights)
            sums[epoch_key(protocol, "rmsd", name)] = _valid_sum(scores["rmsd"], scores["rmsd_valid"])
            # a constant has no correlation: 0, over the samples that have an RMSD
            if name == "constant":
                scores |= {"corr": torch.zeros_like(scores["corr"]), "corr_valid": scores["rmsd_valid"]}
            sums[epoch_key(protocol, "corr", name)] = _valid_sum(scores["corr"], scores["corr_valid"])
        sums[f"uncertainty/memory/visited_share_{protocol}"] = (weights.sum(), mask.sum())
        sums[f"uncertainty/memory/mean_error_val_{protocol}"] = ((weights * error).sum(), weights.sum())
    return sums


def overlap_counts(predicted: torch.Tensor, reference: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return true positives, false positives and false negatives per region over a batch, each (R,)."""
    axes = [0, *range(2, predicted.ndim)]
    return {
        "tp_hard": (predicted & reference).sum(axes),
        "fp_hard": (predicted & ~reference).sum(axes),
        "fn_hard": (~predicted & reference).sum(axes),
    }


def failure_rates(visit: Visit, outputs: Outputs, task: Task) -> Sums:
    """Return ``val_patch/failure_rate_REGION``: the share of a region's reference where the main region fails."""
    main, reference = slice(outputs.main, outputs.main + 1), visit.reference
    failure = visit.predicted[:, main] != reference[:, main]
    return {
        f"val_patch/failure_rate_{name}": ((failure & reference[:, i : i + 1]).sum(), reference[:, i].sum())
        for i, name in enumerate(task.region_keys.values())
    }


def metrics_of(trainer: Any, means: Mapping[str, float]) -> dict[str, float]:
    """Return an epoch's metrics, the means over its steps and :func:`end_of_epoch`, where something was measured."""
    at_end = end_of_epoch(trainer.settings.task)
    metrics = {**means, **{name: float(read(trainer)) for name, read in at_end.items()}}
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
