"""All scores of one case, in one row per region."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uncseg.config.sections import PROTOCOLS
from uncseg.dataset.labels import REGIONS
from uncseg.evaluation.calibration import calibration_errors, reliability
from uncseg.evaluation.detection import boundary_band, error_detection
from uncseg.evaluation.expectation import mean_uncertainty
from uncseg.evaluation.lesions import DILATIONS, lesionwise
from uncseg.evaluation.overlap import dice, region_mask, sensitivity, specificity, volume_ml
from uncseg.evaluation.qu_brats import qu_brats
from uncseg.evaluation.surface import bounding_box
from uncseg.evaluation.uncertainty import protocol_mask, score_map
from uncseg.metric_keys import failure_key

ScoreRow = dict[str, Any]
SCORES_VERSION = 3
"""To be raised when the definition of a score changes: scores on disk with another version are computed again."""


def score_case(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    uncertainty: Mapping[str, np.ndarray] | None = None,
    brain: np.ndarray | None = None,
) -> list[ScoreRow]:
    """Score a segmentation, and uncertainty maps of it, against the reference.

    Args:
        reference, prediction: labels 1 NCR, 2 ED, 3 ET, 3D, the same shape.
        spacing_mm: along the arrays' axes.
        uncertainty: by region (WT, TC, ET), in [0, 1]; a region without a map gets no scores of one.
        brain: bool; None: the whole volume counts as brain.

    Returns:
        One row for each of WT, TC and ET: ``region``, ``failure_rate``, the scores of its segmentation and, where
        there is a map, those of :func:`uncertainty_row`.
    """
    box = _around_tumour(reference, prediction)
    near_reference, near_prediction = reference[box], prediction[box]
    # the uncertainty head learns the failures of the whole tumour, so every region's failure rate counts those
    failure = region_mask(near_reference, "WT") != region_mask(near_prediction, "WT")
    rows = []
    for region in REGIONS:
        expected, found = region_mask(near_reference, region), region_mask(near_prediction, region)
        row: ScoreRow = {"region": region, **_segmentation_row(expected, found, spacing_mm, reference.size)}
        row["failure_rate"] = float(failure[expected].mean()) if expected.any() else math.nan
        if uncertainty and region in uncertainty:
            # certain voxels count wherever they are
            whole = region_mask(reference, region), region_mask(prediction, region)
            row |= uncertainty_row(*whole, uncertainty[region], brain)
        rows.append(row)
    return rows


def _around_tumour(reference: np.ndarray, prediction: np.ndarray) -> tuple[slice, ...]:
    """Return the part of the volume that holds both segmentations, with room for the dilation of lesions."""
    tumour = (reference > 0) | (prediction > 0)
    return bounding_box(tumour, DILATIONS) if tumour.any() else tuple(slice(0, 1) for _ in tumour.shape)


def _segmentation_row(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], voxels: int
) -> ScoreRow:
    """Return the scores of one region in a part of a volume of ``voxels`` voxels; the part holds both bool masks."""
    return {
        "dice": dice(reference, prediction),
        **lesionwise(reference, prediction, spacing_mm),
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
