"""QU-BraTS: what filtering out uncertain voxels does for a segmentation (Mehta et al. 2022, MELBA 2022:026)."""

import numpy as np
from sklearn.metrics import auc

THRESHOLDS = np.linspace(100, 0, 41)
EPS = float(np.finfo(np.float32).eps)


def qu_brats(
    reference: np.ndarray, prediction: np.ndarray, uncertainty_percent: np.ndarray, brain: np.ndarray
) -> dict[str, float]:
    """Return the areas under Dice, filtered true positives and filtered true negatives over 41 thresholds, and a score.

    A voxel is certain where its uncertainty is at most the threshold. Dice is that of the certain voxels. The ratios
    are the shares of the brain's true positives and true negatives filtered out, which lower the score. The
    formulas are those of the challenge's script, github.com/RagMeh11/QU-BraTS.

    Args:
        reference, prediction, brain: bool.
        uncertainty_percent: in [0, 100].

    Returns:
        ``qu_auc_dice``, ``qu_auc_ftp``, ``qu_auc_ftn`` and ``qu_score`` in [0, 1], and ``qu_score_always_certain``: the
        score of a map of zeros, which is a high floor.
    """
    start = certain_from(uncertainty_percent.ravel())
    reference, prediction, brain = reference.ravel(), prediction.ravel(), brain.ravel()
    both, neither = reference & prediction, ~reference & ~prediction
    groups = both, reference != prediction, both & brain, neither & brain
    return qu_brats_of_counts(*(np.bincount(start[voxels]) for voxels in groups))


def certain_from(uncertainty_percent: np.ndarray) -> np.ndarray:
    """Return the number of the lowest threshold at which a voxel is certain, counted from 0 at threshold 0."""
    return np.searchsorted(THRESHOLDS[::-1], uncertainty_percent)


def qu_brats_of_counts(
    both: np.ndarray, one: np.ndarray, both_brain: np.ndarray, neither_brain: np.ndarray
) -> dict[str, float]:
    """Return what :func:`qu_brats` returns, from numbers of voxels by :func:`certain_from`, (41,) or shorter each.

    They are of the region in both reference and prediction, in one of them, and in the brain in both and in neither.
    """

    def certain(counts: np.ndarray) -> np.ndarray:
        """Number of certain voxels at each threshold from 0 to 100."""
        return np.cumsum(np.pad(counts.astype(float), (0, len(THRESHOLDS)))[: len(THRESHOLDS)])

    thresholds = THRESHOLDS[::-1] / 100
    right = certain(both)
    counted = 2 * right + certain(one)
    dices = np.where(counted == 0, 1.0, 2 * right / np.maximum(counted, 1))
    areas = {"qu_auc_dice": float(auc(thresholds, dices))}
    for name, counts in (("ftp", both_brain), ("ftn", neither_brain)):
        number = counts.sum()
        areas[f"qu_auc_{name}"] = float(auc(thresholds, (number - certain(counts)) / (number + EPS)))
    score = (areas["qu_auc_dice"] + 1 - areas["qu_auc_ftp"] + 1 - areas["qu_auc_ftn"]) / 3
    return areas | {"qu_score": float(score), "qu_score_always_certain": float((dices[-1] + 2) / 3)}
