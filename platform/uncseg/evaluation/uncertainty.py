"""Uncertainty against error, for one case in native space: numpy in float64, independent of the training code."""

from typing import Literal

import numpy as np
from scipy import ndimage

EPS = 1e-6
MIN_MASK_VOXELS = 50
MIN_SD = 1e-4
DILATION_VOXELS = 2

Protocol = Literal["reference", "union"]


def failure_map(reference_wt: np.ndarray, predicted_wt: np.ndarray) -> np.ndarray:
    """Where the predicted whole tumour is not the reference's, bool."""
    return reference_wt != predicted_wt


def protocol_mask(reference_wt: np.ndarray, predicted_wt: np.ndarray, protocol: str) -> np.ndarray:
    """The voxels a protocol looks at, bool.

    Args:
        reference_wt, predicted_wt: bool, (D, H, W).
        protocol: "reference" (the paper's), or "union": reference or prediction, dilated by 2 voxels with the
            26-neighbour element.
    """
    if protocol == "reference":
        return reference_wt
    if protocol != "union":
        raise ValueError(f"protocol is {protocol!r}; write reference or union")
    return ndimage.maximum_filter(reference_wt | predicted_wt, size=2 * DILATION_VOXELS + 1, mode="constant")


def score_map(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """RMSD and Pearson correlation of a map with the error, over a mask.

    Args:
        uncertainty: in [0, 1].
        error: in [0, 1], or bool.
        mask: bool.

    Returns:
        ``rmsd`` and ``corr``; NaN where the mask has fewer than 50 voxels, and for corr where either side has a
        standard deviation under 1e-4 in it. Such a case is left out of means, never counted as a number.
    """
    u, e = uncertainty[mask].astype(np.float64), error[mask].astype(np.float64)
    if u.size < MIN_MASK_VOXELS:
        return {"rmsd": float("nan"), "corr": float("nan")}
    rmsd = float(np.sqrt(((u - e) ** 2).sum() / (u.size + EPS)))
    if min(u.std(), e.std()) < MIN_SD:
        return {"rmsd": rmsd, "corr": float("nan")}
    covariance = float(((u - u.mean()) * (e - e.mean())).mean())
    return {"rmsd": rmsd, "corr": covariance / float(u.std() * e.std())}
