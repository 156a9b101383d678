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
    # certain from the n-th threshold from below on
    from_threshold = np.searchsorted(THRESHOLDS[::-1], uncertainty_percent.ravel())
    reference, prediction, brain = reference.ravel(), prediction.ravel(), brain.ravel()

    def certain(voxels: np.ndarray) -> np.ndarray:
        """Number of certain voxels among these, at each threshold from 0 to 100."""
        return np.cumsum(np.bincount(from_threshold[voxels], minlength=len(THRESHOLDS)))[: len(THRESHOLDS)]

    both, either = certain(reference & prediction), certain(reference) + certain(prediction)
    dices = np.where(either == 0, 1.0, 2 * both / np.maximum(either, 1))
    areas = {"qu_auc_dice": auc(THRESHOLDS[::-1] / 100, dices)}
    for name, voxels in (("ftp", reference & prediction & brain), ("ftn", ~reference & ~prediction & brain)):
        number = int(np.count_nonzero(voxels))
        areas[f"qu_auc_{name}"] = auc(THRESHOLDS[::-1] / 100, (number - certain(voxels)) / (number + EPS))
    score = (areas["qu_auc_dice"] + 1 - areas["qu_auc_ftp"] + 1 - areas["qu_auc_ftn"]) / 3
    return {**{k: float(v) for k, v in areas.items()}, "qu_score": float(score)} | {
        "qu_score_always_certain": float((dices[-1] + 2) / 3)
    }
