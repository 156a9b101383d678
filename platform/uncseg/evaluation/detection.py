"""How well a map finds wrong voxels, whatever its scale is."""

import math

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_curve

BAND_VOXELS = 2


def boundary_band(predicted: np.ndarray) -> np.ndarray:
    """Return the voxels within 2 voxels (26-neighbour steps) of the predicted border, on either side of it; bool."""
    size = 2 * BAND_VOXELS + 1
    inside = predicted.astype(np.uint8)
    near = ndimage.maximum_filter(inside, size=size, mode="nearest")
    deep = ndimage.minimum_filter(inside, size=size, mode="nearest")
    return near != deep


def error_detection(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Score the detection of errors inside a mask: a voxel is called wrong where its uncertainty reaches a threshold.

    Args:
        uncertainty: any scale, since only the order counts.
        error, mask: bool.

    Returns:
        ``auroc``, ``auprc`` (average precision) and ``fpr95`` (share of right voxels that are called wrong at the first
        threshold that finds 95 % of the wrong ones), in [0, 1]; NaN where the mask has no wrong or no right voxel.
    """
    u, wrong = uncertainty[mask], error[mask]
    positives = int(np.count_nonzero(wrong))
    negatives = len(wrong) - positives
    if not positives or not negatives:
        return dict.fromkeys(("auroc", "auprc", "fpr95"), math.nan)
    labels, values, weights = _merge_zeros(wrong, u)
    fpr, tpr, _ = roc_curve(labels, values, sample_weight=weights, drop_intermediate=False)
    called = tpr * positives + fpr * negatives
    precision = tpr[1:] * positives / called[1:]
    return {
        "auroc": float(np.trapezoid(tpr, fpr)),
        "auprc": float((np.diff(tpr) * precision).sum()),
        "fpr95": float(fpr[np.searchsorted(tpr, 0.95 - 1e-12)]),
    }


def _merge_zeros(wrong: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge the samples that are exactly 0, most of a brain, into two weighted ones, which are sorted faster."""
    rest = u != 0
    zeros = wrong[~rest]
    counts = np.array([len(zeros) - np.count_nonzero(zeros), np.count_nonzero(zeros)])
    kept = counts > 0
    labels = np.concatenate([wrong[rest], np.array([False, True])[kept]])
    values = np.concatenate([u[rest], np.zeros(int(kept.sum()), dtype=u.dtype)])
    return labels, values, np.concatenate([np.ones(int(rest.sum())), counts[kept]])
