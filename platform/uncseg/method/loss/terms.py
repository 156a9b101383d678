"""The uncertainty terms of the loss, and the masks they look at.

l = l_seg + unc_weight·l_unc + rmsd_weight·mean(rmsd) + corr_weight·(1 − mean(corr)); l_seg is nnU-Net's own.
Axes: B batch, then one channel and the voxels of the patch. Everything in float32, outside autocast.
"""

from dataclasses import dataclass

import torch

from uncseg.method.distributed_fold import processes, sum_over_processes

EPS = 1e-6
MIN_MASK_VOXELS = 50
MIN_SD = 1e-4
DILATION_VOXELS = 2


def dilate(mask: torch.Tensor, voxels: int = DILATION_VOXELS) -> torch.Tensor:
    """Dilate a bool mask (B, 1, …) with the 26-neighbour element (2D: 8), ``voxels`` times.

    n dilations with the full 3³ element are one with the (2n+1)³ cube, which is taken one axis at a time.
    """
    for axis in range(2, mask.ndim):
        wider, size = mask.clone(), mask.shape[axis]
        for shift in range(1, min(voxels, size - 1) + 1):
            wider.narrow(axis, shift, size - shift).logical_or_(mask.narrow(axis, 0, size - shift))
            wider.narrow(axis, 0, size - shift).logical_or_(mask.narrow(axis, shift, size - shift))
        mask = wider
    return mask


def protocol_masks(reference_wt: torch.Tensor, predicted_wt: torch.Tensor) -> dict[str, torch.Tensor]:
    """The masks of both protocols, (B, 1, …) bool.

    reference: the reference tumour (the paper's). union: reference or prediction, dilated by 2 voxels.
    """
    return {"reference": reference_wt, "union": dilate(reference_wt | predicted_wt)}


def per_sample_scores(u: torch.Tensor, e: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """RMSD and weighted Pearson correlation of each sample.

    Args:
        u: uncertainty, (B, 1, …) in [0, 1].
        e: error, the same shape and range.
        weights: m, the same shape, 0 or 1 (or bool).

    Returns:
        ``rmsd``, ``corr`` (B,), and ``rmsd_valid``, ``corr_valid`` (B,) bool: false where a sample has fewer than 50
        mask voxels, and for corr also where a weighted standard deviation is under 1e-4. Values are finite
        everywhere, gradients too; those of invalid samples mean nothing.
    """
    u, e, m = u.float().flatten(1), e.float().flatten(1), weights.float().flatten(1)
    voxels = m.sum(1)
    mass = voxels + EPS
    rmsd = ((m * (u - e) ** 2).sum(1) / mass + EPS**2).sqrt()
    du = u - ((m * u).sum(1) / mass)[:, None]
    de = e - ((m * e).sum(1) / mass)[:, None]
    var_u, var_e = (m * du**2).sum(1) / mass, (m * de**2).sum(1) / mass
    corr = (m * du * de).sum(1) / mass / (((var_u + EPS**2) * (var_e + EPS**2)).sqrt() + EPS)
    enough = voxels >= MIN_MASK_VOXELS
    varied = (var_u >= MIN_SD**2) & (var_e >= MIN_SD**2)
    return {"rmsd": rmsd, "corr": corr, "rmsd_valid": enough, "corr_valid": enough & varied}


@dataclass(frozen=True)
class UncertaintyTerms:
    """The three terms of a batch, 0-dimensional float32 tensors, never NaN; rmsd and 1 − corr are 0 without samples."""

    unc: torch.Tensor
    rmsd: torch.Tensor
    one_minus_corr: torch.Tensor


def _mean_of_valid(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    # where(), not values[valid]: indexing by a mask would make the host wait for the device
    total = torch.where(valid, values, torch.zeros_like(values)).sum()
    return total * processes() / sum_over_processes(valid.sum()).clamp(min=1)


def uncertainty_terms(u: torch.Tensor, e: torch.Tensor, weights: torch.Tensor) -> UncertaintyTerms:
    """l_unc, mean rmsd and 1 − mean corr of a batch.

    l_unc averages over all voxels of the patch, as the paper's formula does; the other two over the samples that
    :func:`per_sample_scores` calls valid, in all processes that train the fold.

    Args:
        u: sigmoid(u), (B, 1, …), unmasked.
        e: error memory as it was before this visit, (B, 1, …).
        weights: m = mask · [n > 0], (B, 1, …).
    """
    m = weights.float()
    scores = per_sample_scores(u, e, m)
    corr_valid = scores["corr_valid"]
    return UncertaintyTerms(
        unc=((u.float() * m - e.float() * m) ** 2).mean(),
        rmsd=_mean_of_valid(scores["rmsd"], scores["rmsd_valid"]),
        one_minus_corr=_mean_of_valid(1 - scores["corr"], corr_valid),
    )


def warmup_factor(epoch: int, warmup_epochs: int) -> float:
    """Share of the uncertainty terms' weight in an epoch (counted from 0): linear from 0 to 1, then 1."""
    return 1.0 if warmup_epochs == 0 else min(1.0, epoch / warmup_epochs)
