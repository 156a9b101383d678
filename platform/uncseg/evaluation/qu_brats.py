"""QU-BraTS: what filtering out uncertain voxels does for a segmentation (Mehta et al. 2022, MELBA 2022:026)."""

import numpy as np
from sklearn.metrics import auc

THRESHOLDS = np.linspace(100, 0, 41)
EPS = float(np.finfo(np.float32).eps)


def qu_brats(
    reference: np.ndarray, prediction: np.ndarray, uncertainty_percent: np.ndarray, brain: np.ndarray
) -> dict[str, float]:
    """Areas under Dice, filtered true positives and filtered true negatives over 41 thresholds, and their score.

    A voxel is certain where its uncertainty is at most the threshold. Dice is that of the certain voxels; the ratios
    say which share of the brain's true positives and true negatives is filtered out, and cost. Formulas of the
    challenge's script, github.com/RagMeh11/QU-BraTS.

    Args:
        reference, prediction, brain: bool.
        uncertainty_percent: in [0, 100].

    Returns:
        ``qu_auc_dice``, ``qu_auc_ftp``, ``qu_auc_ftn`` and ``qu_score`` in [0, 1]; ``qu_score_always_certain``, which
        a map of zeros has: the floor, and a high one.
    """
    start = certain_from(uncertainty_percent.ravel())
    reference, prediction, brain = reference.ravel(), prediction.ravel(), brain.ravel()
    both, neither = reference & prediction, ~reference & ~prediction
    groups = {
        "both": both,
        "one": reference != prediction,
        "both_brain": both & brain,
        "neither_brain": neither & brain,
    }
    return qu_brats_of_counts(**{name: np.bincount(start[voxels]) for name, voxels in groups.items()})


def certain_from(uncertainty_percent: np.ndarray) -> np.ndarray:
    """Number of the threshold, from 0 for the lowest, from which on a voxel is certain."""
    return np.searchsorted(THRESHOLDS[::-1], uncertainty_percent)


def qu_brats_of_counts(
    both: np.ndarray, one: np.ndarray, both_brain: np.ndarray, neither_brain: np.ndarray
) -> dict[str, float]:
    """The figures of :func:`qu_brats` from counts of voxels by :func:`certain_from`.

    Args:
        both: voxels that reference and prediction call tumour, (41,) or shorter.
        one: that one of them does.
        both_brain, neither_brain: that both, or neither, call tumour, inside the brain.
    """

    def certain(counts: np.ndarray) -> np.ndarray:
        """Number of certain voxels at each threshold from 0 to 100."""
        padded = np.zeros(max(len(counts), len(THRESHOLDS)))
        padded[: len(counts)] = counts
        return np.cumsum(padded)[: len(THRESHOLDS)]

    right = certain(both)
    counted = 2 * right + certain(one)
    dices = np.where(counted == 0, 1.0, 2 * right / np.maximum(counted, 1))
    areas = {"qu_auc_dice": auc(THRESHOLDS[::-1] / 100, dices)}
    for name, counts in (("ftp", both_brain), ("ftn", neither_brain)):
        number = counts.sum()
        areas[f"qu_auc_{name}"] = auc(THRESHOLDS[::-1] / 100, (number - certain(counts)) / (number + EPS))
    score = (areas["qu_auc_dice"] + 1 - areas["qu_auc_ftp"] + 1 - areas["qu_auc_ftn"]) / 3
    return {**{k: float(v) for k, v in areas.items()}, "qu_score": float(score)} | {
        "qu_score_always_certain": float((dices[-1] + 2) / 3)
    }
