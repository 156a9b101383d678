"""Whether a map means what it says: of the voxels it calls wrong with 30 %, are 30 % wrong?"""

import math

import numpy as np

BINS = 20


def reliability(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Counts of the reliability diagram: 20 bins of equal width over [0, 1], the last one closed.

    Args:
        uncertainty: in [0, 1].
        error, mask: bool.

    Returns:
        (20, 3) float64: voxels, sum of their uncertainty, wrong voxels. Counts of several cases add up.
    """
    u, wrong = uncertainty[mask].astype(np.float64), error[mask]
    return _counted(u, None, wrong.astype(np.float64))


def reliability_of_counts(values: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The counts of :func:`reliability` where voxels of equal uncertainty were counted before.

    Args:
        values: uncertainty, (N,) in [0, 1].
        right, wrong: voxels with it, (N,).
    """
    return _counted(values.astype(np.float64), (right + wrong).astype(np.float64), wrong.astype(np.float64))


def _counted(u: np.ndarray, voxels: np.ndarray | None, wrong: np.ndarray) -> np.ndarray:
    bins = np.minimum((u * BINS).astype(np.int64), BINS - 1)
    columns = (voxels, u if voxels is None else u * voxels, wrong)
    return np.stack([np.bincount(bins, weights=weights, minlength=BINS) for weights in columns], axis=1).astype(float)


def calibration_errors(counts: np.ndarray) -> dict[str, float]:
    """Expected and average calibration error of :func:`reliability`'s counts.

    Returns:
        ``ece``: |mean uncertainty − share of wrong voxels| averaged over voxels (Naeini et al. 2015); ``ace``: averaged
        over the bins that hold any (average calibration error, Neumann et al. 2018). In [0, 1]; NaN without voxels.
    """
    filled = counts[counts[:, 0] > 0]
    if not len(filled):
        return {"ece": math.nan, "ace": math.nan}
    voxels, uncertainty, wrong = filled.T
    gaps = np.abs(uncertainty - wrong) / voxels
    return {"ece": float((gaps * voxels).sum() / voxels.sum()), "ace": float(gaps.mean())}
