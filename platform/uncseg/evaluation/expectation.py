"""What an uncertainty map says of a case that has no reference: how good its segmentation may be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from uncseg.dataset.brats import REGIONS
from uncseg.evaluation.overlap import region_mask, volume_ml
from uncseg.evaluation.uncertainty import protocol_mask

REVIEW_BELOW = 0.8
"""Expected Dice of the whole tumour under which a case is to be looked at, where nothing better is known."""
REVIEWED_SHARE = 0.2
"""Where a run has out-of-fold cases: the share of them that would be looked at."""


def expected_dice(predicted: np.ndarray, uncertainty: np.ndarray) -> float:
    """Dice to expect of a mask, in [0, 1], with each voxel wrong at the probability that the map gives.

    Of the prediction's voxels Σ(1 − u) are then right; Σu over it are too many, and Σu over the rest are missing:
    2·TP / (2·TP + FP + FN) of these expectations. 1 where nothing is predicted and nothing is doubted.

    Args:
        predicted: bool.
        uncertainty: in [0, 1]; 0 outside the dilated prediction, where a map says nothing.
    """
    inside = float(uncertainty[predicted].sum(dtype=np.float64))
    outside = float(uncertainty.sum(dtype=np.float64)) - inside
    right = int(np.count_nonzero(predicted)) - inside
    whole = 2 * right + inside + outside
    return 2 * right / whole if whole > 0 else 1.0


def review_reason(predicted: np.ndarray, expected: float | None, below: float) -> str | None:
    """Why a person should look at a case; None where nothing speaks for it.

    Args:
        predicted: whole tumour, bool.
        expected: Dice to expect; None without a map.
        below: from which on that is good enough.
    """
    if not predicted.any():
        return "no tumour found"
    if expected is not None and expected < below:
        return f"expected WT Dice {expected:.3f} is below {below:.3f}"
    return None


def review_threshold(per_case: pd.DataFrame | None) -> float:
    """Expected Dice that a fifth of a run's own out-of-fold cases do not reach; 0.8 before it has been evaluated.

    Args:
        per_case: the run's table, a row a case.
    """
    if per_case is None or "expected_dice_wt" not in per_case:
        return REVIEW_BELOW
    known = per_case["expected_dice_wt"].dropna()
    return float(known.quantile(REVIEWED_SHARE)) if len(known) else REVIEW_BELOW


def around_prediction(uncertainty: np.ndarray | None, predicted: np.ndarray) -> np.ndarray | None:
    """A map inside the dilated prediction, 0 elsewhere: the mask that there is without a reference.

    Where nothing is predicted the map stays whole: what it doubts then is that there is nothing.
    """
    if uncertainty is None or not predicted.any():
        return uncertainty
    return (uncertainty * protocol_mask(predicted, predicted, "union")).astype(np.float32)


def mean_uncertainty(predicted: np.ndarray, uncertainty: np.ndarray) -> float:
    """A case's uncertainty as one number: the mean in the dilated prediction; where nothing is predicted, the largest.

    Args:
        predicted: bool.
        uncertainty: in [0, 1].
    """
    around = protocol_mask(predicted, predicted, "union")
    return float(uncertainty[around].mean(dtype=np.float64) if around.any() else uncertainty.max(initial=0))


def describe(
    labels: np.ndarray, uncertainty: np.ndarray | None, spacing_mm: Sequence[float], review_below: float
) -> dict[str, Any]:
    """What CASE.json says of a prediction.

    Args:
        labels: 1 NCR, 2 ED, 3 ET.
        uncertainty: of :func:`around_prediction`; None without the head.
        spacing_mm: along the axes.
        review_below: expected Dice under which a case is to be reviewed.

    Returns:
        ``volume_{wt,tc,et}_ml``; of a map ``mean_uncertainty``, ``total_uncertainty_ml`` (its sum times the volume of a
        voxel), ``expected_wrong_voxels`` (its sum), ``expected_dice_wt`` (None where nothing is predicted); ``review``,
        ``review_reason`` and ``review_below``.
    """
    record: dict[str, Any] = {
        f"volume_{region.lower()}_ml": volume_ml(region_mask(labels, region), spacing_mm) for region in REGIONS
    }
    predicted = region_mask(labels, "WT")
    expected = None
    if uncertainty is not None:
        expected = expected_dice(predicted, uncertainty) if predicted.any() else None
        total = float(uncertainty.sum(dtype=np.float64))
        record["mean_uncertainty"] = mean_uncertainty(predicted, uncertainty)
        record["total_uncertainty_ml"] = total * float(np.prod(spacing_mm)) / 1000
        record["expected_wrong_voxels"] = total
        record["expected_dice_wt"] = expected
    reason = review_reason(predicted, expected, review_below)
    return record | {"review": reason is not None, "review_reason": reason, "review_below": review_below}
