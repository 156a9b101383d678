"""Calibration: of the voxels that a map calls wrong with a probability of 30 %, are 30 % wrong?"""

import math

import numpy as np

BINS = 20


def reliability(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the counts of the reliability diagram: 20 bins of equal width over [0, 1], the last one closed.

    Args:
        uncertainty: in [0, 1].
        error, mask: bool.

    Returns:
        (20, 3) float64: voxels, sum of their uncertainty, wrong voxels. Counts of several cases add up.
    """
    wrong = error[mask].astype(np.float64)
    return _counts_per_bin(uncertainty[mask].astype(np.float64), np.ones(len(wrong)), wrong)


def reliability_of_counts(values: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return what :func:`reliability` returns, from numbers of voxels by their uncertainty.

    Args:
        values: uncertainty, (N,) in [0, 1].
        right, wrong: numbers of voxels that have it, (N,).
    """
    return _counts_per_bin(values.astype(np.float64), (right + wrong).astype(np.float64), wrong.astype(np.float64))


def _counts_per_bin(u: np.ndarray, voxels: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    bins = np.minimum((u * BINS).astype(np.int64), BINS - 1)
    columns = [np.bincount(bins, weights=weights, minlength=BINS) for weights in (voxels, u * voxels, wrong)]
    return np.stack(columns, axis=1)


def calibration_errors(counts: np.ndarray) -> dict[str, float]:
    """Return the expected and the average calibration error from the counts of :func:`reliability`.

    Returns:
        ``ece``: |mean uncertainty − share of wrong voxels| averaged over voxels (Naeini et al. 2015). ``ace``: the same
        averaged over the bins that hold voxels (average calibration error, Neumann et al. 2018). Both in [0, 1]; NaN
        without voxels.
    """
    filled = counts[counts[:, 0] > 0]
    if not len(filled):
        return {"ece": math.nan, "ace": math.nan}
    voxels, uncertainty, wrong = filled.T
    gaps = np.abs(uncertainty - wrong) / voxels
    return {"ece": float((gaps * voxels).sum() / voxels.sum()), "ace": float(gaps.mean())}
