"""Test-time augmentation: changed copies of a case are predicted and changed back (Wang et al. 2019)."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from uncseg.estimators.registry import Augmentation
from uncseg.estimators.several_passes import Passes


@dataclass(frozen=True)
class Change:
    """How one copy of a case differs from it."""

    flip: tuple[int, ...]
    """Mirrored axes of (C, D, H, W)."""
    noise: torch.Tensor | None
    """Added noise, (C, D, H, W)."""
    matrix: torch.Tensor | None
    """Rotation and scaling, (3, 3), from positions in the copy to those in the case, in voxels from the middle."""


def draw_change(number: int, axes: Sequence[int], shape: Sequence[int], settings: Augmentation) -> Change:
    """Return the change of a sample of images of a shape (C, D, H, W), which is always the same one.

    The first samples mirror along each choice of the axes without noise, all others repeat the choices with noise.
    """
    flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]
    generator = torch.Generator().manual_seed((settings.seed << 20) + number)
    noise = matrix = None
    if number >= len(flips) and settings.noise_sd > 0:
        noise = settings.noise_sd * torch.randn(tuple(shape), generator=generator)
    if number > 0 and (settings.rotation_degrees or settings.scaling):
        matrix = _rotation_and_scaling(settings, generator)
    return Change(flips[number % len(flips)], noise, matrix)


def _rotation_and_scaling(settings: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Return the matrix, (3, 3), of a rotation about a random axis and a scaling."""
    axis = F.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
    angle, factor = (torch.rand(2, generator=generator, dtype=torch.float64) * 2 - 1).tolist()
    x, y, z = axis.tolist()
    # exp of the cross-product matrix of a vector is the rotation about it
    radians = math.radians(settings.rotation_degrees * angle)
    cross = radians * torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(cross) * (1 + settings.scaling * factor)


def resample(volume: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Rotate and scale a volume, (C, D, H, W), about its middle, by linear interpolation; its border continues.

    The matrix, (3, 3), leads from positions (z, y, x) in the result to those in the volume, in voxels from the middle.
    """
    # torch counts from −1 to 1 along each axis, and names x first
    half = torch.tensor([(n - 1) / 2 for n in volume.shape[1:]], dtype=torch.float64).clamp(min=0.5)
    scaled = (matrix * half[None] / half[:, None]).flip(0, 1)
    theta = torch.cat((scaled, torch.zeros(3, 1, dtype=torch.float64)), dim=1).to(volume)
    grid = F.affine_grid(theta[None], [1, *volume.shape], align_corners=True)
    return F.grid_sample(volume[None], grid, align_corners=True, padding_mode="border")[0]


def sample(passes: Passes) -> Iterator[torch.Tensor]:
    """Yield the probabilities of changed copies, (C, D, H, W), each changed back."""
    images, settings = passes.images, passes.settings
    for number in range(settings.samples):
        change = draw_change(number, passes.mirrored_axes, images.shape, settings)
        copy = images if change.noise is None else torch.where(images != 0, images + change.noise.to(images), images)
        if change.matrix is not None:
            copy = resample(copy, change.matrix)
        predicted = passes.probabilities(copy.flip(change.flip)).flip(change.flip)
        if change.matrix is not None:
            predicted = resample(predicted, torch.linalg.inv(change.matrix)).clamp(0, 1)
        yield predicted
