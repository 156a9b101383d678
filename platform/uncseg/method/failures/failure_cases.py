"""The cases of a cross-validation as failure networks see them: images, what a network made of them, and the truth.

All is on the preprocessed grid, (…, D, H, W).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from uncseg.method.failures.margins import LARGEST_LOGIT
from uncseg.method.loss.terms import dilate


@dataclass(frozen=True)
class FailureCase:
    """One case, predicted by the fold that did not see it."""

    images: Any
    """(C, D, H, W), float; anything that can be sliced like an array, so that it may lie in a file."""
    logits: Any
    """Of each region's probability, (R, D, H, W) float16."""
    decisions: Any
    """Whether each region is chosen, (R, D, H, W) bool."""
    reference: Any
    """Whether the expert says so, (R, D, H, W) bool."""
    centres: np.ndarray
    """Where patches may lie: voxels of the union mask, (N, 3) int."""


@dataclass(frozen=True)
class Batch:
    """Patches, (B, …, d, h, w); all float32 but the decisions."""

    images: torch.Tensor
    logits: torch.Tensor
    decisions: torch.Tensor
    """bool"""
    wrong: torch.Tensor
    """1 where the decision on a region is wrong, else 0."""
    weights: torch.Tensor
    """1 in the union mask of a region, ``outside`` in the rest of the case, 0 beyond it."""


def draw_batch(
    cases: Sequence[FailureCase], patch: Sequence[int], size: int, random: np.random.Generator, outside: float
) -> Batch:
    """Draw patches of random cases around voxels of their union masks, mirrored at random, with changed intensities.

    Args:
        cases: each is drawn alike.
        patch: voxels along each axis.
        size: number of patches.
        random: all that is drawn comes from it.
        outside: weight of voxels outside the union mask, in [0, 1].
    """
    parts = [_draw_patch(cases[int(random.integers(len(cases)))], patch, random) for _ in range(size)]
    images, logits, decisions, reference, inside = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    near = dilate(decisions | reference).float()
    wrong = (decisions != reference).float()
    return Batch(images, logits, decisions, wrong, (near + outside * (1 - near)) * inside)


def _draw_patch(case: FailureCase, patch: Sequence[int], random: np.random.Generator) -> list[torch.Tensor]:
    """Return images, logits, decisions, reference, and 1 where the case is, each (…, d, h, w)."""
    shape, centre = case.decisions.shape[1:], case.centres[random.integers(len(case.centres))]
    corner = []
    for axis, length in enumerate(patch):
        first = int(centre[axis]) - length // 2 + int(random.integers(-(length // 4), length // 4 + 1))
        corner.append(min(max(first, 0), max(0, shape[axis] - length)))
    box = (slice(None), *(slice(first, first + length) for first, length in zip(corner, patch, strict=True)))
    images = np.asarray(case.images[box]).astype(np.float32)
    gain, shift = (values.reshape(-1, 1, 1, 1) for values in _drawn_intensities(len(images), random))
    arrays = {
        "images": (gain * images + shift, 0),
        "logits": (np.asarray(case.logits[box]).astype(np.float32), -LARGEST_LOGIT),
        "decisions": (np.asarray(case.decisions[box]), False),
        "reference": (np.asarray(case.reference[box]), False),
        "inside": (np.ones((1, *images.shape[1:]), np.float32), 0),
    }
    flips = tuple(axis + 1 for axis in range(3) if random.random() < 0.5)
    room = [(0, 0), *((0, length - n) for length, n in zip(patch, images.shape[1:], strict=True))]
    padded = (np.pad(values, room, constant_values=beyond) for values, beyond in arrays.values())
    return [torch.from_numpy(np.flip(values, flips).copy()) for values in padded]


def _drawn_intensities(channels: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a factor and a shift for each channel of normalised images."""
    return random.uniform(0.9, 1.1, channels).astype(np.float32), random.normal(0, 0.1, channels).astype(np.float32)
