"""What a validation step measures: patch Dice, failure rates, and every estimator against the error memory."""

from collections.abc import Mapping

import torch

from uncseg.estimators.floors import best_constant
from uncseg.estimators.one_pass import OnePass, estimate_all
from uncseg.method.loss.terms import per_sample_scores, protocol_masks
from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.uncertainty_network import Output, max_probability, wt_probability
from uncseg.method.training.epoch_means import Sums
from uncseg.metric_keys import epoch_key

REGION_NAMES = ("wt", "tc", "et")


def _valid_sum(values: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.where(valid, values, torch.zeros_like(values)).sum(), valid.sum()


def estimator_sums(
    logits: torch.Tensor,
    u: torch.Tensor | None,
    q: torch.Tensor | None,
    predicted_wt: torch.Tensor,
    reference_wt: torch.Tensor,
    memory: Reading,
    output: Output,
    several_passes: Mapping[str, torch.Tensor],
) -> Sums:
    """Return ``uncertainty/PROTOCOL/{rmsd,corr}_ema/ESTIMATOR`` of a batch as (sum, number of valid samples).

    Args:
        logits: full-resolution segmentation logits.
        u: the uncertainty map's logit, (B, 1, …), or None.
        q: a phantom's rater probability, (B, 1, …), or None.
        predicted_wt, reference_wt: (B, 1, …) bool.
        memory: the validation memory as it was before this visit.
        output: what the logits mean.
        several_passes: maps of estimators of several passes, (B, 1, …).
    """
    prediction = OnePass(
        p_wt=wt_probability(logits, output),
        max_probability=max_probability(logits, output),
        predicted_wt=predicted_wt,
        u=u,
        variance_stable=memory.values["variance"],
        q=q,
    )
    maps = dict(several_passes) | estimate_all(prediction)
    error = memory.values["error"]
    sums: Sums = {}
    for protocol, mask in protocol_masks(reference_wt, predicted_wt).items():
        weights = mask * memory.visited
        for name, estimate in (maps | {"constant": best_constant(error, weights)}).items():
            scores = per_sample_scores(estimate, error, weights)
            sums[epoch_key(protocol, "rmsd", name)] = _valid_sum(scores["rmsd"], scores["rmsd_valid"])
            # a constant has no correlation: 0, over the samples that have an RMSD
            corr, valid = (scores["corr"], scores["corr_valid"])
            if name == "constant":
                corr, valid = torch.zeros_like(corr), scores["rmsd_valid"]
            sums[epoch_key(protocol, "corr", name)] = _valid_sum(corr, valid)
        sums[f"uncertainty/memory/visited_share_{protocol}"] = (weights.sum(), mask.sum())
        sums[f"uncertainty/memory/mean_error_val_{protocol}"] = ((weights * error).sum(), weights.sum())
    return sums


def overlap_counts(predicted: torch.Tensor, reference: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return true positives, false positives and false negatives per region over a batch, each (3,)."""
    axes = [0, *range(2, predicted.ndim)]
    return {
        "tp_hard": (predicted & reference).sum(axes),
        "fp_hard": (predicted & ~reference).sum(axes),
        "fn_hard": (~predicted & reference).sum(axes),
    }


def failure_rates(failure: torch.Tensor, reference: torch.Tensor) -> Sums:
    """Return ``val_patch/failure_rate_REGION``: the share of a region's reference voxels that fail."""
    return {
        f"val_patch/failure_rate_{name}": ((failure & reference[:, i : i + 1]).sum(), reference[:, i].sum())
        for i, name in enumerate(REGION_NAMES)
    }
