"""Overlap of segmentations per case and region. Masks are bool arrays in native space."""

from collections.abc import Sequence

import numpy as np

from uncseg.tasks.task import Task


def region_mask(labels: np.ndarray, region: str, task: Task) -> np.ndarray:
    """Return the voxels of a region of the task in a label volume, bool."""
    # comparisons of whole volumes are ten times quicker than np.isin
    first, *others = task.numbers[region]
    mask: np.ndarray = labels == first
    for label in others:
        mask |= labels == label
    return mask


def main_mask(labels: np.ndarray, task: Task) -> np.ndarray:
    """Return the voxels of the task's main region in a label volume, bool."""
    return region_mask(labels, task.main_region, task)


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Return 2·|A ∩ B| / (|A| + |B|), in [0, 1]; as in the BraTS challenge 1 where both are empty, 0 where one is."""
    total = int(np.count_nonzero(reference)) + int(np.count_nonzero(prediction))
    return 1.0 if total == 0 else 2 * int(np.count_nonzero(reference & prediction)) / total


def sensitivity(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Return TP / (TP + FN), in [0, 1]; with an empty reference 1 where the prediction is empty too, else 0 (BraTS)."""
    positives = int(np.count_nonzero(reference))
    if positives == 0:
        return 0.0 if prediction.any() else 1.0
    return int(np.count_nonzero(reference & prediction)) / positives


def specificity(reference: np.ndarray, prediction: np.ndarray, voxels: int | None = None) -> float:
    """Return TN / (TN + FP) over the whole volume, in [0, 1]; 0 where the reference fills it (BraTS).

    Args:
        reference, prediction: bool; any part of the volume that holds both.
        voxels: number of voxels of the whole volume, where a part is given.
    """
    size = reference.size if voxels is None else voxels
    negatives = size - int(np.count_nonzero(reference))
    kept = size - int(np.count_nonzero(reference | prediction))
    return kept / negatives if negatives else 0.0


def volume_ml(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Return the volume of a mask in millilitres."""
    return float(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / 1000
