"""Scores of one method's map of one case: figures that no scale changes, and counts for those that a scale changes.

The maps of methods have different scales, so each is multiplied by a factor that is fitted once all cases are known.
Figures that depend on the factor are computed from counts of voxels by uncertainty, rounded to 1/1000, or finer if the
largest value of a map is below 0.1, 0.01, ….
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from uncseg.config.training_sections import PROTOCOLS
from uncseg.evaluation.calibration import calibration_errors, reliability_of_counts
from uncseg.evaluation.detection import boundary_band, error_detection
from uncseg.evaluation.figures import scaled_keys
from uncseg.evaluation.overlap import dice, main_mask, region_mask
from uncseg.evaluation.qu_brats import certain_from, qu_brats_of_counts
from uncseg.evaluation.surface import bounding_box
from uncseg.evaluation.uncertainty import DILATION_VOXELS, pearson, protocol_mask, rmsd
from uncseg.metric_keys import failure_key
from uncseg.tasks.task import Task

STEPS = 1000
FINEST = 10**8
"""Most steps per 1; smaller values are meaningless in float32 as well."""
HISTOGRAMS = ("tp", "fp", "fn", "tn_union", "tp_brain", "fp_brain", "fn_brain", "tn_brain", "around_prediction")


@dataclass(frozen=True)
class MethodCase:
    """Figures of a map, and counts from which the others are computed once the factor is known."""

    figures: dict[str, float]
    """``dice_REGION`` of each region; per protocol the correlation with the failure and, in
    ``corr_oracle_PROTOCOL``, with its probability; ``auroc``, ``auprc`` and ``fpr95`` with ``_brain`` and ``_band``;
    ``auprc_union``;
    ``qu_score_always_certain``; ``sum_ue`` and ``sum_uu`` over the union mask, for the factor's fit."""
    counts: dict[str, np.ndarray]
    """``histograms``: voxels, (9, 1001) int32, in the order of HISTOGRAMS; ``steps`` per 1, int64 ()."""


def score_method_case(
    reference: np.ndarray,
    labels: np.ndarray,
    uncertainty: np.ndarray,
    brain: np.ndarray,
    task: Task,
    q: np.ndarray | None = None,
) -> MethodCase:
    """Score a map against the errors of a segmentation's main region.

    Args:
        reference, labels: as the task numbers them, (D, H, W).
        uncertainty: in [0, 1], float.
        brain: bool.
        task: what the labels mean.
        q: probability that a rater calls a voxel the main region, in [0, 1]; None if the case is not a phantom: figures
            against the oracle's P(failure) are NaN.

    Returns:
        Figures are NaN by the rules of :func:`~uncseg.evaluation.uncertainty.pearson` and
        :func:`~uncseg.evaluation.detection.error_detection`.
    """
    largest = float(uncertainty.max(initial=0))
    box = _counted_part(reference, labels, brain)
    reference, labels, u, brain = reference[box], labels[box], uncertainty[box], brain[box]
    figures = {
        f"dice_{key}": dice(region_mask(reference, region, task), region_mask(labels, region, task))
        for region, key in task.region_keys.items()
    }
    expected, predicted = main_mask(reference, task), main_mask(labels, task)
    failure = expected != predicted
    masks = {protocol: protocol_mask(expected, predicted, protocol) for protocol in PROTOCOLS}
    chance = None if q is None else np.where(predicted, 1 - q[box], q[box])
    for protocol, mask in masks.items():
        figures[failure_key("corr", protocol)] = correlation(u[mask], failure[mask])
        figures[f"corr_oracle_{protocol}"] = math.nan if chance is None else correlation(u[mask], chance[mask])
    for name, mask in (("brain", brain), ("band", boundary_band(predicted))):
        figures |= {f"{key}_{name}": value for key, value in error_detection(u, failure, mask).items()}
    figures["auprc_union"] = error_detection(u, failure, masks["union"])["auprc"]
    inside = u[masks["union"]].astype(np.float64)
    figures |= {"sum_ue": float(inside @ failure[masks["union"]]), "sum_uu": float(inside @ inside)}
    steps = _steps(largest)
    around = protocol_mask(predicted, predicted, "union")
    histograms = _histograms(u, steps, expected, predicted, brain, masks["union"], around)
    if not around.any():
        # without a prediction a case is as uncertain as its most uncertain voxel
        histograms[HISTOGRAMS.index("around_prediction"), round(largest * steps)] = 1
    counts = {"histograms": histograms, "steps": np.array(steps)}
    figures["qu_score_always_certain"] = _qu_brats(counts, 0)["qu_score_always_certain"]
    return MethodCase(figures, counts)


def correlation(u: np.ndarray, error: np.ndarray) -> float:
    """Return :func:`~uncseg.evaluation.uncertainty.pearson` for ``u`` of any scale.

    Args:
        u: uncertainty of a mask's voxels, ≥ 0, (N,).
        error: in [0, 1], or bool, (N,).
    """
    largest = u.max(initial=0).astype(np.float64)
    return pearson(u / largest if largest > 0 else u, error, np.ones(len(u)))


def scaled_figures(counts: Mapping[str, np.ndarray], factor: float) -> dict[str, float]:
    """Compute the figures of the map min(1, factor · u).

    Args:
        counts: of :class:`MethodCase`.
        factor: ≥ 0; NaN if unknown.

    Returns:
        RMSD under both protocols (NaN by the rule of :func:`~uncseg.evaluation.uncertainty.rmsd`), Brier score and ECE
        in the union mask, ACE and ECE in the brain, QU-BraTS of the main region, and
        :func:`~uncseg.evaluation.expectation.mean_uncertainty`; NaN where the factor is.
    """
    if math.isnan(factor):
        return dict.fromkeys(scaled_keys(), math.nan)
    voxels = _by_name(counts)
    u = _scaled(counts, factor)
    wrong_brain = voxels["fp_brain"] + voxels["fn_brain"]
    bins = reliability_of_counts(u, voxels["tp_brain"] + voxels["tn_brain"], wrong_brain)
    right, wrong = voxels["tp"] + voxels["tn_union"], voxels["fp"] + voxels["fn"]
    return {
        "rmsd_reference": _rmsd(u, voxels["tp"], voxels["fn"]),
        "rmsd_union": _rmsd(u, right, wrong),
        "brier_union": _brier(u, right, wrong),
        "ece_union": calibration_errors(reliability_of_counts(u, right, wrong))["ece"],
        **calibration_errors(bins),
        "qu_score": _qu_brats(counts, factor)["qu_score"],
        "mean_uncertainty": float(np.average(u, weights=voxels["around_prediction"])),
    }


def _counted_part(reference: np.ndarray, labels: np.ndarray, brain: np.ndarray) -> tuple[slice, ...]:
    """Return the box of all that is counted, with room for the masks' dilation."""
    counted = brain | (reference > 0) | (labels > 0)
    return bounding_box(counted, DILATION_VOXELS + 1) if counted.any() else tuple(slice(0, 1) for _ in counted.shape)


def _steps(largest: float) -> int:
    steps = STEPS
    # 0.1 as float32 is slightly above 0.1, and has to be counted as finely
    while largest > 0 and largest * steps * 10 <= STEPS * (1 + 1e-6) and steps < FINEST:
        steps *= 10
    return steps


def _histograms(
    u: np.ndarray,
    steps: int,
    expected: np.ndarray,
    predicted: np.ndarray,
    brain: np.ndarray,
    union: np.ndarray,
    around: np.ndarray,
) -> np.ndarray:
    kind = np.zeros(u.shape, np.int32)
    for bit, mask in enumerate((expected, predicted, brain, union, around)):
        kind += mask.astype(np.int32) << bit
    step = np.rint(u * np.float32(steps)).astype(np.int32)
    by_kind = np.bincount((kind * (STEPS + 1) + step).ravel(), minlength=32 * (STEPS + 1)).reshape(32, STEPS + 1)
    in_expected, in_predicted, in_brain, in_union, in_around = (np.arange(32) >> bit & 1 == 1 for bit in range(5))
    groups = [in_expected & in_predicted, in_predicted & ~in_expected, in_expected & ~in_predicted]
    neither = ~(in_expected | in_predicted)
    chosen = [*groups, neither & in_union, *(group & in_brain for group in (*groups, neither)), in_around]
    return np.stack([by_kind[group].sum(0) for group in chosen]).astype(np.int32)


def _by_name(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(HISTOGRAMS, counts["histograms"].astype(np.int64), strict=True))


def _scaled(counts: Mapping[str, np.ndarray], factor: float) -> np.ndarray:
    # rounded to the decimal number, so that values on thresholds and on edges of bins lie exactly there
    return np.minimum(1, np.round(factor * np.arange(STEPS + 1) / int(counts["steps"]), 12))


def _rmsd(u: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> float:
    return rmsd(np.tile(u, 2), np.repeat([0, 1], len(u)), np.concatenate([right, wrong]))


def _brier(u: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> float:
    voxels = int(right.sum() + wrong.sum())
    return float((right * u**2 + wrong * (1 - u) ** 2).sum() / voxels) if voxels else math.nan


def _qu_brats(counts: Mapping[str, np.ndarray], factor: float) -> dict[str, float]:
    voxels = _by_name(counts)
    start = certain_from(np.round(100 * _scaled(counts, factor), 9))
    groups = {"both": "tp", "both_brain": "tp_brain", "neither_brain": "tn_brain"}
    summed = {name: np.bincount(start, weights=voxels[group]) for name, group in groups.items()}
    return qu_brats_of_counts(one=np.bincount(start, weights=voxels["fp"] + voxels["fn"]), **summed)
