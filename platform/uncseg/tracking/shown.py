"""Which metrics and params MLflow shows: what a person compares runs by.

The chart page has a section for everything up to a metric's last slash, so the names make its chapters:

    train/loss                                  of an epoch's steps
    val_patch/dice_wt                           of an epoch's validation patches
    uncertainty/PROTOCOL/KIND_ema/ESTIMATOR     against the error memory
    system/epoch_seconds
    final/dice_wt                               out of fold, once, at step 0: the UI draws bars of it, not curves
    GROUP/std/NAME, final/NAME_std              the same over folds: their spread; beside it where it is a result

The spool and the tables of epochs hold all the others as well.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from uncseg.config.fields import flatten, is_within
from uncseg.evaluation.figures import is_informative, shown_in
from uncseg.metric_keys import parse_epoch_key

_NOT_SHOWN = re.compile(
    r"uncertainty/memory/(visited_share_\w+|mean_error_\w+_reference)"
    r"|system/memory_bytes_per_case_\w+"
    r"|train/uncertainty_warmup"  # the experiment says it
)
_NO_PARAMS = ("name", "dataset.path", "resources", "tracking", "storage")


def is_shown(metric: str) -> bool:
    """Whether a metric of the epochs goes to MLflow."""
    compared = parse_epoch_key(metric)
    if compared is not None:
        return is_informative(compared.kind, compared.estimator)
    return _NOT_SHOWN.fullmatch(metric) is None


def in_order(metrics: Iterable[str]) -> list[str]:
    """Those that MLflow shows, the headlines first: its UI opens a comparison's plots with a run's first metric."""
    headlines = shown_in("headline")
    return sorted(filter(is_shown, metrics), key=lambda metric: metric not in headlines)


def between_folds_name(metric: str) -> str | None:
    """Of a metric's standard deviation over folds: a section of its own, or where it is a result the next line.

    None where nobody asks for it.
    """
    if metric.startswith("system/"):
        return None
    if metric.startswith("final/"):
        return f"{metric}_std"
    group, slash, name = metric.rpartition("/")
    return f"{group}{slash}std/{name}"


def shown_params(experiment: Mapping[str, Any]) -> dict[str, str]:
    """An experiment's fields as MLflow params, except those that only change where a run computes and keeps its files.

    Names are dotted; see :func:`~uncseg.config.fields.flatten` for the values.
    """
    return {name: text for name, text in flatten(experiment).items() if not is_within(name, _NO_PARAMS)}
