"""Uncertainty against error for one case in native space: numpy in float64, independent of the training code."""

import math

import numpy as np
from scipy import ndimage

from uncseg.evaluation.calibration import calibration_errors, reliability
from uncseg.evaluation.detection import error_detection

EPS = 1e-6
MIN_MASK_VOXELS = 50
MIN_SD = 1e-4
DILATION_VOXELS = 2


def protocol_mask(reference_main: np.ndarray, predicted_main: np.ndarray, protocol: str) -> np.ndarray:
    """Return the voxels in which a protocol compares, bool, (D, H, W).

    The protocol is "reference" (the paper's), or "union": reference or prediction, dilated by 2 voxels with the
    26-neighbour element. Another one raises a ValueError.
    """
    if protocol == "reference":
        return reference_main
    if protocol != "union":
        raise ValueError(f"protocol is {protocol!r}; write reference or union")
    # n dilations with the 3³ element equal one with the (2n+1)³ cube, whose maximum is taken axis by axis (50 ms)
    return ndimage.maximum_filter(reference_main | predicted_main, size=2 * DILATION_VOXELS + 1, mode="constant")


def _inside(u: np.ndarray, e: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chosen = weights > 0
    return u[chosen].astype(np.float64), e[chosen].astype(np.float64), weights[chosen].astype(np.float64)


def rmsd(u: np.ndarray, e: np.ndarray, weights: np.ndarray) -> float:
    """Return sqrt(Σ m (u − e)² / (Σ m + 1e-6)), in [0, 1]; NaN, which means leave out, where Σ m is under 50 voxels.

    Args:
        u, e: uncertainty in [0, 1], and error in [0, 1] or bool.
        weights: m ≥ 0, or a bool mask; the same shape.
    """
    u, e, m = _inside(u, e, weights)
    if m.sum() < MIN_MASK_VOXELS:
        return math.nan
    return float(np.sqrt((m * (u - e) ** 2).sum() / (m.sum() + EPS)))


def pearson(u: np.ndarray, e: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted Pearson correlation, in [-1, 1]; arguments as in :func:`rmsd`.

    It is NaN where Σ m is under 50 voxels, or where e has a weighted standard deviation under 1e-4: means leave such a
    case out. Where e varies and u alone does not, it is 0: to leave out the case would favour a constant map.
    """
    u, e, m = _inside(u, e, weights)
    if m.sum() < MIN_MASK_VOXELS:
        return math.nan
    m /= m.sum()
    du, de = u - (m * u).sum(), e - (m * e).sum()
    sd_u, sd_e = np.sqrt((m * du**2).sum()), np.sqrt((m * de**2).sum())
    if sd_e < MIN_SD:
        return math.nan
    if sd_u < MIN_SD:
        return 0.0
    return float((m * du * de).sum() / (sd_u * sd_e))


def score_failures(uncertainty: np.ndarray, failure: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return how well a map tells the failures inside a mask, all but ``corr`` in [0, 1].

    They are ``auprc`` (average precision), ``brier`` (mean squared difference), ``ece`` (expected calibration error),
    ``corr`` and ``rmsd``; NaN where the mask has fewer than 50 voxels, or no wrong voxel or no right one.
    """
    scores = score_map(uncertainty, failure, mask)
    both = np.count_nonzero(mask) >= MIN_MASK_VOXELS and 0 < np.count_nonzero(failure[mask]) < np.count_nonzero(mask)
    if not both:
        return scores | dict.fromkeys(("auprc", "brier", "ece"), math.nan)
    return scores | {
        "auprc": error_detection(uncertainty, failure, mask)["auprc"],
        "brier": float(np.mean((uncertainty[mask].astype(np.float64) - failure[mask]) ** 2)),
        "ece": calibration_errors(reliability(uncertainty, failure, mask))["ece"],
    }


def score_map(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return ``rmsd`` and ``corr`` of a map with the error inside a bool mask."""
    return {"rmsd": rmsd(uncertainty, error, mask), "corr": pearson(uncertainty, error, mask)}
