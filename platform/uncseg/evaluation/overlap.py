"""Overlap of segmentations, per region and case. Masks are bool arrays in native space."""

from collections.abc import Sequence

import numpy as np

from uncseg.dataset.brats import REGIONS


def region_mask(labels: np.ndarray, region: str) -> np.ndarray:
    """Voxels of WT, TC or ET in a label volume (1 NCR, 2 ED, 3 ET), bool."""
    return np.isin(labels, REGIONS[region])


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    """2·|A ∩ B| / (|A| + |B|), in [0, 1]; 1 where both are empty, 0 where one is (the BraTS challenge's rule)."""
    total = int(reference.sum()) + int(prediction.sum())
    return 1.0 if total == 0 else 2 * int((reference & prediction).sum()) / total


def volume_ml(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume of a mask in millilitres."""
    return float(mask.sum()) * float(np.prod(spacing_mm)) / 1000
