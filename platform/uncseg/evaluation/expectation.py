"""What an uncertainty map says about a case without a reference: how good its segmentation may be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from uncseg.evaluation.overlap import main_mask, region_mask, volume_ml
from uncseg.evaluation.uncertainty import protocol_mask
from uncseg.tasks.task import Task

REVIEW_BELOW = 0.8
"""Expected Dice of the main region below which a case is to be reviewed, where the run has no evaluated cases."""
REVIEWED_SHARE = 0.2
"""Share of a run's own out-of-fold cases that would be reviewed, where it has any."""
WORDS = ("review_reason", "uncertainty_from")
"""Entries of CASE.json that are words where there are any; all others that may be null are numbers."""


def expected_dice_column(task: Task) -> str:
    """Return the name, in records and tables, of the Dice to expect of the main region."""
    return f"expected_dice_{task.main_key}"


def expected_dice(predicted: np.ndarray, uncertainty: np.ndarray) -> float:
    """Return the Dice to expect of a mask, in [0, 1], if each voxel is wrong with the probability that the map gives.

    Σ(1 − u) of the predicted voxels are then true positives and Σu of them false positives; Σu of the other voxels are
    false negatives. The result is 2·TP / (2·TP + FP + FN) of these expectations, or 1 where nothing is predicted and
    every voxel is certain. The map has to be 0 outside the dilated prediction, where it says nothing.
    """
    false_positives = float(uncertainty[predicted].sum(dtype=np.float64))
    false_negatives = float(uncertainty.sum(dtype=np.float64)) - false_positives
    twice_right = 2 * (int(np.count_nonzero(predicted)) - false_positives)
    whole = twice_right + false_positives + false_negatives
    return 1.0 if whole <= 0 else twice_right / whole  # NaN stays NaN


def review_reason(predicted: np.ndarray, expected: float | None, below: float, region: str) -> str | None:
    """Return why a person should review a case, or None if nothing suggests it.

    Args:
        predicted: the predicted main region, bool.
        expected: its expected Dice; None without a map. One that is NaN suggests a review.
        below: from this expected Dice on, no review is needed.
        region: name of the main region.
    """
    if not predicted.any():
        return f"no {region} found"
    if expected is not None and math.isnan(expected):
        return f"expected {region} Dice is not a number"
    if expected is not None and not expected >= below:
        return f"expected {region} Dice {expected:.3f} is below {below:.3f}"
    return None


def review_thresholds(per_case: pd.DataFrame | None, task: Task) -> dict[str, float]:
    """Return, by map, the expected Dice that a fifth of a run's own out-of-fold cases do not reach.

    What one map expects is no threshold for another: a map without cases of its own is missing.

    Args:
        per_case: one row per case; None before the run's evaluation. Older tables do not tell the map: the head's.
        task: of the run.
    """
    if per_case is None or (column := expected_dice_column(task)) not in per_case:
        return {}
    maps = per_case.get("uncertainty_from", pd.Series("head", per_case.index))
    known = per_case[column].dropna().groupby(maps)
    return {str(name): float(values.quantile(REVIEWED_SHARE)) for name, values in known if len(values)}


def thresholds_in(description: Mapping[str, Any]) -> dict[str, float]:
    """Return the thresholds of :func:`review_thresholds` that a stored model's uncseg.json holds.

    Older ones hold a single number, for the head's map.
    """
    older = {"head": description["review_below"]} if "review_below" in description else {}
    return {str(name): float(value) for name, value in description.get("review_thresholds", older).items()}


MAPS_IN_WORDS = {
    "head": "the head's",
    "cross_fitted": "the cross-fitted one",
    "calibrated": "calibrated p",
}


def maps_of(per_case: pd.DataFrame | None) -> tuple[str, ...]:
    """Return which maps are the uncertainty of a run's cases, in words; empty where none is, or none is told."""
    told = pd.Series(dtype=object) if per_case is None else per_case.get("uncertainty_from", pd.Series(dtype=object))
    return tuple(words for name, words in MAPS_IN_WORDS.items() if name in set(told.dropna()))


def around_prediction(uncertainty: np.ndarray | None, predicted: np.ndarray) -> np.ndarray | None:
    """Set a map to 0 outside the dilated prediction, which takes the place of a mask without a reference.

    Where nothing is predicted the map stays as it is: it then says how far it is in doubt that there is nothing.
    """
    if uncertainty is None or not predicted.any():
        return uncertainty
    return (uncertainty * protocol_mask(predicted, predicted, "union")).astype(np.float32)


def mean_uncertainty(predicted: np.ndarray, uncertainty: np.ndarray) -> float:
    """Return a case's uncertainty: the mean in the dilated prediction, or the maximum where nothing is predicted."""
    around = protocol_mask(predicted, predicted, "union")
    return float(uncertainty[around].mean(dtype=np.float64) if around.any() else uncertainty.max(initial=0))


def describe(
    labels: np.ndarray, uncertainty: np.ndarray | None, spacing_mm: Sequence[float], review_below: float, task: Task
) -> dict[str, Any]:
    """Return the content of CASE.json for a prediction.

    Args:
        labels: as the task numbers them.
        uncertainty: from :func:`around_prediction`; None without a map.
        spacing_mm: along the axes.
        review_below: see :func:`review_reason`.
        task: what the labels mean.

    Returns:
        ``volume_REGION_ml`` of each region; with a map ``mean_uncertainty``, ``total_uncertainty_ml`` (its sum times a
        voxel's volume), ``expected_wrong_voxels`` (its sum) and ``expected_dice_MAIN`` of the main region (None where
        nothing of it is predicted); ``review``, ``review_reason`` and ``review_below``.
    """
    record: dict[str, Any] = {
        f"volume_{key}_ml": volume_ml(region_mask(labels, region, task), spacing_mm)
        for region, key in task.region_keys.items()
    }
    predicted = main_mask(labels, task)
    expected = None
    if uncertainty is not None:
        expected = expected_dice(predicted, uncertainty) if predicted.any() else None
        total = float(uncertainty.sum(dtype=np.float64))
        record |= {
            "mean_uncertainty": mean_uncertainty(predicted, uncertainty),
            "total_uncertainty_ml": total * float(np.prod(spacing_mm)) / 1000,
            "expected_wrong_voxels": total,
            expected_dice_column(task): expected,
        }
    reason = review_reason(predicted, expected, review_below, task.main_region)
    return record | {"review": reason is not None, "review_reason": reason, "review_below": review_below}
