"""All scores of one case, in one row per region."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uncseg.config.training_sections import PROTOCOLS
from uncseg.evaluation.calibration import calibration_errors, reliability
from uncseg.evaluation.detection import boundary_band, error_detection
from uncseg.evaluation.expectation import mean_uncertainty
from uncseg.evaluation.lesions import lesionwise
from uncseg.evaluation.overlap import dice, main_mask, region_mask, sensitivity, specificity, volume_ml
from uncseg.evaluation.qu_brats import qu_brats
from uncseg.evaluation.surface import bounding_box
from uncseg.evaluation.uncertainty import protocol_mask, score_map
from uncseg.metric_keys import failure_key
from uncseg.tasks.fields import LesionRule
from uncseg.tasks.task import Task

ScoreRow = dict[str, Any]
SCORES_VERSION = 6
"""To be raised when the definition of a score changes: scores on disk with another version are computed again."""


def definition_of_scores(task: Task) -> list[Any]:
    """Return what the scores of a case depend on besides its voxels, for digests."""
    return [SCORES_VERSION, task.numbers, task.main_region, task.lesions.model_dump()]


def score_case(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    task: Task,
    uncertainty: Mapping[str, np.ndarray] | None = None,
    brain: np.ndarray | None = None,
) -> list[ScoreRow]:
    """Score a segmentation, and uncertainty maps of it, against the reference.

    Args:
        reference, prediction: labels as the task numbers them, 3D, the same shape.
        spacing_mm: along the arrays' axes.
        task: its regions are scored, and its rule tells lesions apart.
        uncertainty: by region, in [0, 1]; a region without a map gets no scores of one.
        brain: bool; None: the whole volume counts as brain.

    Returns:
        One row per region of the task: ``region``, ``failure_rate``, the scores of its segmentation and, where
        there is a map, those of :func:`uncertainty_row`.
    """
    box = _around_labels(reference, prediction, task.lesions.dilations)
    near_reference, near_prediction = reference[box], prediction[box]
    # the uncertainty head learns the failures of the main region, so every region's failure rate counts those
    failure = main_mask(near_reference, task) != main_mask(near_prediction, task)
    rows = []
    for region in task.regions:
        expected, found = region_mask(near_reference, region, task), region_mask(near_prediction, region, task)
        scores = _segmentation_row(expected, found, spacing_mm, task.lesions, reference.size)
        row: ScoreRow = {"region": region, **scores}
        row["failure_rate"] = float(failure[expected].mean()) if expected.any() else math.nan
        if uncertainty and region in uncertainty:
            # certain voxels count wherever they are
            whole = region_mask(reference, region, task), region_mask(prediction, region, task)
            row |= uncertainty_row(*whole, uncertainty[region], brain)
        rows.append(row)
    return rows


def _around_labels(reference: np.ndarray, prediction: np.ndarray, dilations: int) -> tuple[slice, ...]:
    """Return the part of the volume that holds both segmentations, with room for the dilations of lesions."""
    labelled = (reference > 0) | (prediction > 0)
    return bounding_box(labelled, dilations) if labelled.any() else tuple(slice(0, 1) for _ in labelled.shape)


def _segmentation_row(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], rule: LesionRule, voxels: int
) -> ScoreRow:
    """Return the scores of one region in a part of a volume of ``voxels`` voxels; the part holds both bool masks."""
    return {
        "dice": dice(reference, prediction),
        **lesionwise(reference, prediction, spacing_mm, rule),
        "sensitivity": sensitivity(reference, prediction),
        "specificity": specificity(reference, prediction, voxels),
        "reference_volume_ml": volume_ml(reference, spacing_mm),
        "predicted_volume_ml": volume_ml(prediction, spacing_mm),
    }


def uncertainty_row(
    reference: np.ndarray, prediction: np.ndarray, uncertainty: np.ndarray, brain: np.ndarray | None
) -> ScoreRow:
    """Return the scores of one region's map against the region's own errors, reference ≠ prediction.

    Returns:
        RMSD and correlation with the failure per protocol (:func:`~uncseg.metric_keys.failure_key`); QU-BraTS;
        ``auroc``, ``auprc`` and ``fpr95`` with ``_brain`` and ``_band``; ``ece`` and ``ace`` inside the brain;
        ``mean_uncertainty`` of :func:`~uncseg.evaluation.expectation.mean_uncertainty`; ``reliability``, the counts of
        the diagram, (20, 3) as lists.
    """
    error = reference != prediction
    brain = np.ones_like(error) if brain is None else brain
    row: ScoreRow = {}
    for protocol in PROTOCOLS:
        scores = score_map(uncertainty, error, protocol_mask(reference, prediction, protocol))
        row |= {failure_key(kind, protocol): scores[kind] for kind in ("rmsd", "corr")}
    # as a float32, 0.05 is slightly more than 5 %, and would not be certain at the threshold of 5
    digits = 5 if uncertainty.dtype == np.float32 else 9
    percent = np.round(100 * uncertainty.astype(np.float64), digits)
    row |= qu_brats(reference, prediction, percent, brain)
    for name, mask in (("brain", brain), ("band", boundary_band(prediction))):
        row |= {f"{key}_{name}": value for key, value in error_detection(uncertainty, error, mask).items()}
    counts = reliability(uncertainty, error, brain)
    row |= calibration_errors(counts)
    return row | {"mean_uncertainty": mean_uncertainty(prediction, uncertainty), "reliability": counts.tolist()}
