"""The volumes of a case, read once and judged: what is wrong with them, and what is odd."""

import math
from dataclasses import dataclass, field

import numpy as np

from uncseg.dataset.cases import Case
from uncseg.dataset.finite import count_not_finite
from uncseg.dataset.labels import convert_labels
from uncseg.dataset.volumes import Geometry, Volume, geometry_problems, read_or_note, read_volume
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.tasks.task import Task

MAX_PROBLEMS = 6
"""Largest number of problems per case that are listed, so that a case fills at most a screen."""
SMALLEST_CONTRAST = 1e-7
"""Standard deviation of the intensities in the head below which nnU-Net's normalisation loses them."""

SMALLEST_SHARE, ODD_SHARE = 0.1, 0.5
"""Of an image's standard deviation: a smaller range of nine tenths of the voxels is refused, or a warning. Real images
have 2.5 and more; with -32768 in the air around the head it is 0.03."""
_SAMPLE = 100_000
ODD_DISTANCE_MM = 0.1
"""Distance between the positions that the sform and ITK give a voxel from which on there is a warning."""


@dataclass(frozen=True)
class CaseVolumes:
    """A case whose files can be used.

    Args:
        case: the files.
        images: one per channel.
        labels: as the task numbers them, (D, H, W) uint8; None without a reference.
        reference: as it is stored; None without one.
        warnings: what is odd and can be used.
    """

    case: Case
    images: tuple[Volume, ...]
    labels: np.ndarray | None
    reference: Volume | None
    warnings: list[Problem] = field(default_factory=list)

    @property
    def geometry(self) -> Geometry:
        """Of the first image; what is predicted is written in it."""
        return self.images[0].geometry


def read_case_volumes(case: Case, task: Task) -> CaseVolumes:
    """Read all files of a case of a task.

    Problems are files that cannot be read, geometries that differ among the files, images whose values are not finite
    in single precision, too large or without contrast, and unknown labels.

    Raises:
        ProblemsFound: all problems of the case, at most :data:`MAX_PROBLEMS`, with exit code 1.
    """
    problems: list[Problem] = []
    images = [volume for file in case.images if (volume := read_or_note(file, problems)) is not None]
    reference = None if case.reference is None else read_or_note(case.reference, problems)
    labels = None if reference is None else convert_labels(reference, case.convention, problems, task=task)
    warnings = _two_positions(images)
    for image in images:
        wrong = intensity_problems(str(image.file), image.voxels)
        problems += wrong
        if not wrong and (share := _share_of_contrast(image.voxels)) < ODD_SHARE:
            (problems if share < SMALLEST_SHARE else warnings).append(_far_values(image, share))
    volumes = [*images, *([reference] if reference is not None else [])]
    problems = list(dict.fromkeys([*problems, *_geometries_that_differ(volumes)]))
    if len(problems) > MAX_PROBLEMS:
        left = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [Problem(case.case_id, f"{left} more problems", "none", "mend those above first")]
    raise_if_any(problems, f"{case.case_id} cannot be used.", exit_code=1)
    return CaseVolumes(case, tuple(images), labels, reference, warnings + _equal_images(images))


def intensity_problems(file: str, voxels: np.ndarray) -> list[Problem]:
    """Return why intensities cannot be normalised: not finite in single precision, too large, zero, or constant."""
    expected = "finite values in single precision"
    if wrong := count_not_finite(voxels):
        found = f"{wrong} voxels that are NaN or infinite"
        return [Problem(file, found, "finite values", "repair the image (no-data voxels: 0), or exclude the case")]
    largest = max(abs(float(voxels.max())), abs(float(voxels.min())))
    if largest == 0:
        return [Problem(file, "zero everywhere", "an image", "download it again, or exclude the case")]
    # sums of squares are what a standard deviation is made of
    limit = float(np.finfo(np.float32).max)
    if largest * largest * voxels.size > limit and _sum_of_squares(voxels) > limit:
        found = f"values up to {largest:.2g}, whose squares overflow single precision"
        return [Problem(file, found, expected, "set no-data voxels to 0, or scale the image")]
    head = voxels[voxels != 0]
    low, high = (float(np.float32(value)) for value in (head.min(), head.max()))
    # n values from low to high have a standard deviation of at least (high - low) / √(2n): most need no other look
    enough = high - low > SMALLEST_CONTRAST * math.sqrt(2 * head.size)
    if enough or (low < high and head.std(dtype=np.float64) > SMALLEST_CONTRAST):
        return []
    values = f"the value {low:g}" if low == high else f"values from {low:g} to {high:g}"
    found = f"no contrast: {values} in all {head.size} voxels of the head"
    return [Problem(file, found, "an image", "download it again, scale it, or exclude the case")]


def _geometries_that_differ(volumes: list[Volume]) -> list[Problem]:
    """Return how files differ from the first one; where that is the odd one out, how it differs from the others."""

    def differing(like: Volume) -> list[Problem]:
        return [problem for volume in volumes for problem in geometry_problems(volume, like)]

    found = differing(volumes[0]) if volumes else []
    return min(map(differing, volumes), key=len) or found if found else []


def _share_of_contrast(voxels: np.ndarray) -> float:
    """Return the range of nine tenths of the voxels of the head, as a share of the standard deviation of all of them.

    A no-data value such as -32768, or one voxel of 1e17, makes it small: then normalisation leaves no contrast.
    Voxels of the smallest and of the largest value are not among the nine tenths. Up to :data:`_SAMPLE` are looked at.
    """
    head = voxels[voxels != 0]
    others = head[:: max(1, head.size // _SAMPLE)]
    others = others[(others != head.min()) & (others != head.max())]
    if not others.size:
        return math.inf
    low, high = np.percentile(others, (5, 95))
    return float(high - low) / float(head.std(dtype=np.float64))


def _far_values(image: Volume, share: float) -> Problem:
    voxels = image.voxels
    low, high = float(voxels.min()), float(voxels.max())
    found = f"values from {low:g} to {high:g}, so far from most others that {100 * share:.2g} % of contrast is left"
    if share == 0:
        found = f"values from {low:g} to {high:g}, of which nine tenths of those between have one value"
    advice = "set no-data voxels, and values that no scanner gives, to 0"
    return Problem(str(image.file), found, "intensities of one scale", advice)


def _sum_of_squares(voxels: np.ndarray) -> float:
    with np.errstate(over="ignore"):
        return float(np.square(voxels, dtype=np.float64).sum())


def _equal_images(images: list[Volume]) -> list[Problem]:
    warnings = []
    for number, volume in enumerate(images):
        for earlier in images[:number]:
            if np.array_equal(volume.voxels, earlier.voxels):
                found, expected = f"the same voxels as {earlier.file.name}", "two different images"
                warnings.append(Problem(str(volume.file), found, expected, "check whether one was copied by mistake"))
    return warnings


def _two_positions(images: list[Volume]) -> list[Problem]:
    """Return a warning of the image whose sform differs most from ITK; the others of a case mostly have the same."""
    volume = max(images, key=lambda image: image.sform_distance_mm, default=None)
    if volume is None or volume.sform_distance_mm <= ODD_DISTANCE_MM:
        return []
    spacing = ", ".join(f"{step:.7g}" for step in volume.geometry.spacing_mm)
    found = f"an sform that places voxels up to {volume.sform_distance_mm:.3g} mm from where ITK does"
    advice = f"correct the header if ITK's choice, which nnU-Net takes too, is wrong: spacing ({spacing}) mm"
    return [Problem(str(volume.file), found, "one position", advice)]


def read_reference(case: Case, task: Task) -> tuple[np.ndarray, Geometry]:
    """Return the labels of the reference as the task numbers them, (D, H, W) uint8, and their geometry.

    Raises:
        ValueError: the case has no reference.
        ProblemsFound: the file cannot be used.
    """
    if case.reference is None:
        raise ValueError(f"{case.case_id} has no reference")
    volume, problems = read_volume(case.reference), list[Problem]()
    labels = convert_labels(volume, case.convention, problems, task=task)
    if labels is None:
        raise ProblemsFound(f"{case.case_id} cannot be used.", problems, exit_code=1)
    return labels, volume.geometry
