"""What the logits of a segmentation say: probabilities and decisions of regions.

Axes: B batch, C channel, D H W voxels in nnU-Net's order (2D: H W). With ``output: labels`` channels are the background
and the task's labels; with ``output: regions`` they are the sigmoid logits of its regions.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from operator import or_

import torch

from uncseg.tasks.outputs import Outputs

LARGEST_LOGIT = 9.2
"""|logit p| that counts at most: p from 0.0001 to 0.9999, beyond which half precision says little."""


def with_background(z: torch.Tensor) -> torch.Tensor:
    """Prepend the background's logit, always 0: (B, n, …) to (B, n + 1, …).

    A shift common to all classes does not change the softmax, so a free logit of the background would add nothing.
    """
    return torch.cat((torch.zeros_like(z[:, :1]), z), dim=1)


def main_probability(logits: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """Return the probability of the main region, (B, 1, …) float32 in [0, 1], from the logits (B, C, …)."""
    if outputs.kind == "regions":
        return logits[:, outputs.main_channels].float().sigmoid()
    # 1 − p(the other classes) loses all digits where p is near 1; the sum of the region's own classes does not
    return logits.float().softmax(1)[:, outputs.main_channels].sum(1, keepdim=True)


def region_probabilities(logits: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """Return the probability of each region, (B, R, …) float32, from the logits (B, C, …)."""
    if outputs.kind == "regions":
        return logits.float().sigmoid()
    p = logits.float().softmax(1)
    return torch.stack([p[:, list(numbers)].sum(1) for numbers in outputs.regions], dim=1)


def main_logit(logits: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """Return the logit of the main region's probability, (B, 1, …) within ±9.2, from the logits (B, C, …).

    Of labels it is logsumexp(those of the region) − logsumexp(the others), which loses no digits near 0 and 1.
    """
    if outputs.kind == "regions":
        logit = logits[:, outputs.main_channels]
    else:
        own = sorted(outputs.regions[outputs.main])
        others = [number for number in range(outputs.channels) if number not in own]
        logit = logits[:, own].logsumexp(1, keepdim=True) - logits[:, others].logsumexp(1, keepdim=True)
    return logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def max_probability(logits: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """Return the probability of the decision, (B, 1, …) float32.

    It is that of the most likely class or, with ``regions``, that of the main region or of its complement.
    """
    if outputs.kind == "regions":
        p = main_probability(logits, outputs)
        return torch.maximum(p, 1 - p)
    return logits.float().softmax(1).amax(1, keepdim=True)


def predicted_regions(logits: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """Return nnU-Net's decision on each region, (B, R, …) bool: argmax over labels, or probability > 0.5."""
    if outputs.kind == "regions":
        return logits > 0
    # argmax by comparisons, where the first of equals wins too: argmax itself takes longer than the whole loss
    background, *labels = logits.split(1, dim=1)
    before = list(accumulate(labels[:-1], torch.maximum, initial=background))
    after = [*accumulate(labels[:0:-1], torch.maximum)][::-1]
    wins = [label > most for label, most in zip(labels, before, strict=True)]
    for is_label, label, most in zip(wins, labels, after, strict=False):  # nothing comes after the last one
        is_label &= label >= most
    return _unions(wins, outputs)


def reference_regions(target: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """Return the regions of a target, (B, R, …) bool, given as labels (B, 1, …) or regions (B, R, …)."""
    if outputs.kind == "regions":
        return target[:, : outputs.logits] > 0
    return _unions([target == number for number in range(1, outputs.labels + 1)], outputs)


def _unions(labels: Sequence[torch.Tensor], outputs: Outputs) -> torch.Tensor:
    """Return the regions, (B, R, …), from the mask of each label, (B, 1, …)."""
    return torch.cat([reduce(or_, (labels[n - 1] for n in numbers)) for numbers in outputs.regions], dim=1)
