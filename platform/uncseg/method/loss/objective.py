"""What a training step makes smaller: the segmentation's loss, and what trains the map beside it."""

import torch
from torch.nn import functional as F

from uncseg.method.loss.terms import uncertainty_terms, warmup_factor
from uncseg.method.memory.error_memory import Reading
from uncseg.method.settings import TrainerSettings

Terms = dict[str, torch.Tensor]


def total_loss(
    settings: TrainerSettings,
    epoch: int,
    segmentation: torch.Tensor,
    logits: torch.Tensor,
    u: torch.Tensor | None,
    failure: torch.Tensor,
    taught: Reading,
    mask: torch.Tensor,
) -> tuple[torch.Tensor, Terms]:
    """l and its terms by name, as ``loss_seg``; outside autocast, in float32.

    Args:
        settings: the experiment's.
        epoch: counted from 0, for the warm-up.
        segmentation: nnU-Net's loss.
        logits: of the segmentation, (B, C, …).
        u: the map's logit, (B, 1, …); None without one.
        failure: this visit's, 0 or 1, (B, 1, …).
        taught: the error that the head learns.
        mask: where it learns, (B, 1, …) bool.
    """
    parts = {"loss_seg": segmentation.float()}
    if settings.model.error_network is not None:
        assert u is not None
        loss = parts["loss_error"] = F.binary_cross_entropy_with_logits(u.float(), failure.float())
        outputs = u  # the logits are a finished network's
    else:
        loss, outputs = parts["loss_seg"], logits if u is None else torch.cat((logits, u), dim=1)
        if u is not None:
            of_head, terms = _head_loss(settings, u, taught, mask)
            loss = loss + warmup_factor(epoch, settings.loss.warmup_epochs) * of_head
            parts |= terms
    if settings.loss.output_l2 > 0:
        parts["loss_output_l2"] = outputs.float().square().mean()
        loss = loss + settings.loss.output_l2 * parts["loss_output_l2"]
    return loss, parts | {"loss": loss}


def _head_loss(
    settings: TrainerSettings, u: torch.Tensor, taught: Reading, mask: torch.Tensor
) -> tuple[torch.Tensor, Terms]:
    weights = settings.loss
    terms = uncertainty_terms(u.float().sigmoid(), taught.values["error"], mask * taught.visited)
    weighted = (
        weights.unc_weight * terms.unc + weights.rmsd_weight * terms.rmsd + weights.corr_weight * terms.one_minus_corr
    )
    return weighted, {"loss_unc": terms.unc, "loss_rmsd": terms.rmsd, "loss_one_minus_corr": terms.one_minus_corr}
