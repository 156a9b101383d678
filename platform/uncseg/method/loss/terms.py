"""The terms of the loss, their weighted sum, and the masks in which maps and errors are compared.

l = l_seg + unc_weight·l_unc + rmsd_weight·mean(rmsd) + corr_weight·(1 − mean(corr)) + entropy_weight·l_entropy, l_seg
being nnU-Net's own. To add a term, write its function and an entry in ``TERMS``; its weight is a field of the
experiment's section ``loss``.
Axes: B batch, then one channel and the voxels of the patch. Everything is computed in float32, outside autocast.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import torch
from torch.nn import functional as F

from uncseg.method.distributed_fold import process_count, sum_over_processes
from uncseg.method.memory.error_memory import Reading
from uncseg.method.settings import TrainerSettings, warmup_factor

EPS = 1e-6
MIN_MASK_VOXELS = 50
MIN_SD = 1e-4
DILATION_VOXELS = 2


def dilate(mask: torch.Tensor) -> torch.Tensor:
    """Dilate a bool mask (B, 1, …) twice with the 26-neighbour element (2D: 8).

    n dilations with the full 3³ element equal one with the (2n+1)³ cube, which is applied one axis at a time.
    """
    for axis in range(2, mask.ndim):
        wider, size = mask.clone(), mask.shape[axis]
        for shift in range(1, min(DILATION_VOXELS, size - 1) + 1):
            wider.narrow(axis, shift, size - shift).logical_or_(mask.narrow(axis, 0, size - shift))
            wider.narrow(axis, 0, size - shift).logical_or_(mask.narrow(axis, shift, size - shift))
        mask = wider
    return mask


def protocol_masks(reference_main: torch.Tensor, predicted_main: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the masks of both protocols, (B, 1, …) bool.

    reference: the main region of the reference (the paper's). union: reference or prediction, dilated by 2 voxels.
    """
    return {"reference": reference_main, "union": dilate(reference_main | predicted_main)}


def per_sample_scores(u: torch.Tensor, e: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the RMSD and the weighted Pearson correlation of each sample.

    Uncertainty u and error e are (B, 1, …) in [0, 1]; the weights m have the same shape, 0 or 1 (or bool).

    Returns:
        ``rmsd``, ``corr`` (B,), and ``rmsd_valid``, ``corr_valid`` (B,) bool: false where a sample has fewer than 50
        mask voxels, and for corr also where a weighted standard deviation is under 1e-4. Values are finite
        everywhere, and so are their gradients; those of invalid samples mean nothing.
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


def with_raw_correlation(
    scores: dict[str, torch.Tensor], u: torch.Tensor, error: torch.Tensor, weights: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the scores of a map with the correlation of its logit u in place of the map's."""
    raw = per_sample_scores(u, error, weights)
    return scores | {name: raw[name] for name in ("corr", "corr_valid")}


@dataclass(frozen=True)
class Comparison:
    """An uncertainty map beside the error that it should show, tensors (B, 1, …)."""

    uncertainty: torch.Tensor
    """sigmoid(u), unmasked."""
    error: torch.Tensor
    """In [0, 1]."""
    weights: torch.Tensor
    """1.0 where the two are compared, else 0.0."""
    scores: dict[str, torch.Tensor]
    """:func:`per_sample_scores` of the three."""

    @classmethod
    def within(cls, mask: torch.Tensor, uncertainty: torch.Tensor, error: torch.Tensor) -> "Comparison":
        """Compare a map with an error within a mask of 0 and 1 (or bool)."""
        weights = mask.float()
        return cls(uncertainty, error, weights, per_sample_scores(uncertainty, error, weights))


@dataclass(frozen=True)
class Step:
    """What the loss terms of a training step are computed from."""

    segmentation_loss: torch.Tensor
    """nnU-Net's, 0-dimensional."""
    logits: torch.Tensor
    """Logits of the segmentation, (B, C, …)."""
    u: torch.Tensor | None
    """Logit of the uncertainty map, (B, 1, …); None without one."""
    failure: torch.Tensor
    """1 where the main region is wrong, else 0, (B, 1, …)."""
    learned_error: Reading
    """The error that the head learns, as it was before this step."""
    mask: torch.Tensor
    """Where the head learns it, (B, 1, …) bool."""
    raw_logit: bool = False
    """Whether it is u, and not the map, whose correlation with the error is trained."""

    @cached_property
    def head(self) -> Comparison:
        """The head's map beside the error that it learns, where that error is known."""
        assert self.u is not None
        known = self.mask * self.learned_error.visited
        error = self.learned_error.values["error"]
        pair = Comparison.within(known, self.u.float().sigmoid(), error)
        return replace(pair, scores=with_raw_correlation(pair.scores, self.u, error, known)) if self.raw_logit else pair


def squared_difference(pair: Comparison) -> torch.Tensor:
    """Return l_unc: the mean over all voxels of the patch, as in the paper's formula."""
    return ((pair.uncertainty.float() * pair.weights - pair.error.float() * pair.weights) ** 2).mean()


def squared_difference_in_mask(pair: Comparison) -> torch.Tensor:
    """Return l_unc as the mean over the voxels of the mask in all processes that train the fold; 0 without any."""
    return _mean_within((pair.uncertainty.float() - pair.error.float()) ** 2, pair.weights)


def entropy_in_mask(step: Step) -> torch.Tensor:
    """Return the cross-entropy between the head's map and the error that it learns, the mean over the mask's voxels.

    It is a proper score: the expected failure minimises it.
    """
    assert step.u is not None
    error = step.learned_error.values["error"].float()
    return _mean_within(F.binary_cross_entropy_with_logits(step.u.float(), error, reduction="none"), step.head.weights)


def _mean_within(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Average over voxels with weights of 0 or 1 in all processes that train the fold, for each part of a batch."""
    total = torch.where(weights > 0, values, torch.zeros_like(values)).sum()
    return total * process_count() / sum_over_processes(weights.sum()).clamp(min=1)


def mean_rmsd(pair: Comparison) -> torch.Tensor:
    """Return the mean RMSD of the valid samples; 0 without any."""
    return _mean_of_valid(pair.scores["rmsd"], pair.scores["rmsd_valid"])


def one_minus_mean_corr(pair: Comparison) -> torch.Tensor:
    """Return 1 − the mean correlation of the valid samples; 0 without any."""
    return _mean_of_valid(1 - pair.scores["corr"], pair.scores["corr_valid"])


def _mean_of_valid(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Average over the valid samples in all processes that train the fold."""
    # where(), not values[valid]: indexing by a mask would make the host wait for the device
    total = torch.where(valid, values, torch.zeros_like(values)).sum()
    return total * process_count() / sum_over_processes(valid.sum()).clamp(min=1)


def failure_entropy(step: Step) -> torch.Tensor:
    """Return the cross-entropy between an error network's map and the failure, the mean over all voxels."""
    assert step.u is not None
    return F.binary_cross_entropy_with_logits(step.u.float(), step.failure.float())


def mean_square_of_outputs(step: Step) -> torch.Tensor:
    """Return the mean square of the trained outputs; the logits that an error network judges are not trained."""
    trained = [outputs for outputs in (step.logits, step.u) if outputs is not None and outputs.requires_grad]
    return torch.cat(trained, dim=1).float().square().mean()


def _has_error_network(settings: TrainerSettings) -> bool:
    return settings.model.error_network is not None


@dataclass(frozen=True)
class LossTerm:
    """One summand of the loss; its mean over an epoch is logged as ``train/loss_NAME``."""

    name: str
    value: Callable[[Step], torch.Tensor]
    """Its value for a batch, 0-dimensional float32 and never NaN."""
    weight: Callable[[TrainerSettings], float | None] = lambda _settings: 1.0
    """Its factor in the loss; None: it is logged, and not trained."""
    warmed_up: bool = False
    """Whether its weight rises over ``loss.warmup_epochs``."""


def _head_term(name: str, value: Callable[[Comparison], torch.Tensor], weight: str) -> LossTerm:
    """Return a term of the uncertainty head whose weight is a field of the section ``loss``."""
    return LossTerm(name, lambda step: value(step.head), lambda s: getattr(s.loss, weight), True)


TERMS = (
    LossTerm("seg", lambda step: step.segmentation_loss.float(), lambda s: None if _has_error_network(s) else 1.0),
    LossTerm("error", failure_entropy),
    _head_term("unc", squared_difference, "unc_weight"),
    _head_term("unc_in_mask", squared_difference_in_mask, "unc_weight"),
    _head_term("rmsd", mean_rmsd, "rmsd_weight"),
    _head_term("one_minus_corr", one_minus_mean_corr, "corr_weight"),
    LossTerm("entropy", entropy_in_mask, lambda s: s.loss.entropy_weight, True),
    LossTerm("output_l2", mean_square_of_outputs, lambda s: s.loss.output_l2),
)
"""All terms, in the order in which they are added; ``TrainerSettings.loss_terms`` says which a training computes."""


def total_loss(settings: TrainerSettings, epoch: int, step: Step) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss in an epoch (from 0), and it and its terms by name, such as ``loss_seg``; outside autocast."""
    values = {term: term.value(step) for term in TERMS if term.name in settings.loss_terms}
    loss: torch.Tensor | float = 0.0
    for warmed_up, terms in groupby(values, lambda term: term.warmed_up):
        part = sum(weight * values[term] for term in terms if (weight := term.weight(settings)) is not None)
        loss = loss + (warmup_factor(epoch, settings.loss.warmup_epochs) * part if warmed_up else part)
    assert isinstance(loss, torch.Tensor)
    return loss, {f"loss_{term.name}": value for term, value in values.items()} | {"loss": loss}
