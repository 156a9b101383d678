"""Calibration: of the voxels that a map calls wrong with a probability of 30 %, are 30 % wrong?"""

import math

import numpy as np

BINS = 20


def reliability(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the counts of the reliability diagram in a mask: 20 bins of equal width over [0, 1], the last one closed.

    They are (20, 3) float64: voxels, sum of their uncertainty in [0, 1], wrong voxels. Counts of several cases add up.
    """
    wrong = error[mask]
    return reliability_of_counts(uncertainty[mask], ~wrong, wrong)


def reliability_of_counts(values: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return what :func:`reliability` returns, from numbers of right and wrong voxels per value in [0, 1], all (N,)."""
    u, voxels = values.astype(np.float64), (right + wrong).astype(np.float64)
    bins = np.minimum((u * BINS).astype(np.int64), BINS - 1)
    columns = [np.bincount(bins, weights=weights, minlength=BINS) for weights in (voxels, u * voxels, wrong)]
    return np.stack(columns, axis=1)


def calibration_errors(counts: np.ndarray) -> dict[str, float]:
    """Return two calibration errors in [0, 1] from the counts of :func:`reliability`; NaN without voxels.

    ``ece`` averages |mean uncertainty − share of wrong voxels| over voxels (expected calibration error, Naeini et al.
    2015), ``ace`` over the bins that hold voxels (average calibration error, Neumann et al. 2018).
    """
    filled = counts[counts[:, 0] > 0]
    if not len(filled):
        return {"ece": math.nan, "ace": math.nan}
    voxels, uncertainty, wrong = filled.T
    gaps = np.abs(uncertainty - wrong) / voxels
    return {"ece": float((gaps * voxels).sum() / voxels.sum()), "ace": float(gaps.mean())}
