"""Uncertainty against error, for one case in native space: numpy in float64, independent of the training code."""

import numpy as np
from scipy import ndimage

EPS = 1e-6
MIN_MASK_VOXELS = 50
MIN_SD = 1e-4
DILATION_VOXELS = 2


def failure_map(reference_wt: np.ndarray, predicted_wt: np.ndarray) -> np.ndarray:
    """Where the predicted whole tumour is not the reference's, bool."""
    return reference_wt != predicted_wt


def protocol_mask(reference_wt: np.ndarray, predicted_wt: np.ndarray, protocol: str) -> np.ndarray:
    """The voxels a protocol looks at, bool.

    Args:
        reference_wt, predicted_wt: bool, (D, H, W).
        protocol: "reference" (the paper's), or "union": reference or prediction, dilated by 2 voxels with the
            26-neighbour element.

    Raises:
        ValueError: for another protocol.
    """
    if protocol == "reference":
        return reference_wt
    if protocol != "union":
        raise ValueError(f"protocol is {protocol!r}; write reference or union")
    # n dilations with the 3³ element are one with the (2n+1)³ cube, whose maximum is taken axis by axis: 50 ms a case
    return ndimage.maximum_filter(reference_wt | predicted_wt, size=2 * DILATION_VOXELS + 1, mode="constant")


def _weighed(u: np.ndarray, e: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chosen = weights > 0
    return u[chosen].astype(np.float64), e[chosen].astype(np.float64), weights[chosen].astype(np.float64)


def rmsd(u: np.ndarray, e: np.ndarray, weights: np.ndarray) -> float:
    """sqrt(Σ m (u − e)² / (Σ m + 1e-6)), in [0, 1].

    Args:
        u: uncertainty in [0, 1].
        e: error in [0, 1], or bool; the same shape.
        weights: m ≥ 0, or a bool mask; the same shape.

    Returns:
        NaN where Σ m is under 50 voxels: such a case is left out of means.
    """
    u, e, m = _weighed(u, e, weights)
    if m.sum() < MIN_MASK_VOXELS:
        return float("nan")
    return float(np.sqrt((m * (u - e) ** 2).sum() / (m.sum() + EPS)))


def pearson(u: np.ndarray, e: np.ndarray, weights: np.ndarray) -> float:
    """Weighted Pearson correlation, in [-1, 1]; arguments as in :func:`rmsd`.

    Returns:
        NaN where Σ m is under 50 voxels, or where either side has a weighted standard deviation under 1e-4: such a
        case is left out of means. So a constant map has none; tables show a floor's as 0.
    """
    u, e, m = _weighed(u, e, weights)
    if m.sum() < MIN_MASK_VOXELS:
        return float("nan")
    m /= m.sum()
    du, de = u - (m * u).sum(), e - (m * e).sum()
    sd_u, sd_e = np.sqrt((m * du**2).sum()), np.sqrt((m * de**2).sum())
    if min(sd_u, sd_e) < MIN_SD:
        return float("nan")
    return float((m * du * de).sum() / (sd_u * sd_e))


def score_map(uncertainty: np.ndarray, error: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """RMSD and Pearson correlation of a map with the error, over a mask.

    Args:
        uncertainty: in [0, 1].
        error: in [0, 1], or bool.
        mask: bool.

    Returns:
        ``rmsd``, ``corr`` (NaN by the rules of :func:`rmsd` and :func:`pearson`) and ``mask_voxels``.
    """
    return {
        "rmsd": rmsd(uncertainty, error, mask),
        "corr": pearson(uncertainty, error, mask),
        "mask_voxels": int(mask.sum()),
    }
