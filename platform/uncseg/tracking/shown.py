"""Which metrics and params MLflow shows: those by which people compare runs.

The chart page has a section for everything up to a metric's last slash, so the names decide its sections:

    train/loss                                  the steps of an epoch
    val_patch/dice_REGION                       the validation patches of an epoch
    uncertainty/PROTOCOL/KIND_ema/ESTIMATOR     compared with the error memory
    system/epoch_seconds
    failures/loss                               of a fold's failure network, by its optimiser steps
    final/dice_REGION                           out of fold, once, at step 0: the UI draws bars, not curves
    GROUP/std/NAME, final/NAME_std              the standard deviation over folds

The spool and the tables of epochs hold all other metrics as well.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from uncseg.config.fields import flatten, is_within
from uncseg.evaluation.figures import is_informative, shown_in
from uncseg.metric_keys import SKIPPED_BATCHES, SKIPPED_STEPS, parse_epoch_key

_NOT_SHOWN = re.compile(
    r"uncertainty/memory/(visited_share_\w+|mean_error_\w+_reference)"
    r"|system/memory_bytes_per_case_\w+"
    r"|train/uncertainty_warmup"  # a setting of the experiment
    r"|train/skipped_steps_loss_scale"
)
_NO_PARAMS = ("name", "dataset.path", "resources", "tracking", "storage")


def is_shown(metric: str) -> bool:
    """Return whether a metric of the epochs goes to MLflow."""
    compared = parse_epoch_key(metric)
    if compared is not None:
        _, kind, estimator = compared
        return is_informative(kind, estimator)
    return _NOT_SHOWN.fullmatch(metric) is None


def in_order(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that MLflow shows, headlines first: its UI opens a comparison with a run's first metric."""
    headlines = shown_in("headline")
    return sorted(filter(is_shown, metrics), key=lambda metric: metric not in headlines)


def between_folds_name(metric: str) -> str | None:
    """Return the name of a metric's standard deviation over folds; None if it is not shown.

    Deviations have a section of their own; that of a final figure stands beside the figure.
    """
    if metric.startswith("system/") or metric in (SKIPPED_STEPS, SKIPPED_BATCHES):
        return None
    if metric.startswith("final/"):
        return f"{metric}_std"
    group, slash, name = metric.rpartition("/")
    return f"{group}{slash}std/{name}"


def shown_params(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return an experiment's fields as MLflow params, except those that only say where a run computes and keeps files.

    Names are dotted; see :func:`~uncseg.config.fields.flatten` for the values.
    """
    return {name: text for name, text in flatten(experiment).items() if not is_within(name, _NO_PARAMS)}
