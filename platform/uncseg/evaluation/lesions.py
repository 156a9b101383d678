"""Lesion-wise scores by the rule of BraTS 2023 (GLI): each lesion scored for itself, each false lesion counted."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from uncseg.evaluation.surface import NO_DISTANCE_MM, SurfaceDistances, bounding_box

DILATIONS = 3
SMALLEST_LESION_MM3 = 50.0


def lesionwise(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """Lesion-wise Dice and HD95 (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics, BraTS-GLI).

    Reference voxels that one component of the reference, dilated 3 times with the 18-neighbour element, holds are a
    lesion. Components of the prediction (26 neighbours) that touch this dilation are matched, whole; one may match
    several lesions. Lesions of at most 50 mm³ drop out, with the components that match only them.

    Args:
        reference, prediction: bool, 3D, the same shape; a part of a volume has to have room for the dilation, as far
            as the volume has it.
        spacing_mm: along the array's axes.

    Returns:
        ``hd95_mm`` of all lesions together; ``lesionwise_dice`` in [0, 1], ``lesionwise_hd95_mm``; ``num_tp``,
        ``num_fp``, ``num_fn``: lesions found, components that match none, lesions missed. 0 mm, 1, 0 mm and no lesion
        where there is nothing on either side.
    """
    dilated = _connected(_dilated(reference))
    lesions, components = np.where(reference, dilated, 0), _connected(prediction)
    distances = SurfaceDistances(lesions, components, spacing_mm)
    counts = _Counts.of(lesions, components)
    matches = _touching(dilated, components)
    smallest = SMALLEST_LESION_MM3 / float(np.prod(spacing_mm))
    kept = [lesion for lesion, voxels in counts.lesions.items() if voxels > smallest]
    dices = [counts.dice(lesion, matches[lesion]) for lesion in kept]
    hd95s = [distances.of_parts(lesion, matches[lesion]) for lesion in kept]
    found = sum(bool(matches[lesion]) for lesion in kept)
    false = len(counts.components.keys() - {component for matched in matches.values() for component in matched})
    total = len(kept) + false
    return {
        "hd95_mm": distances.hd95_mm(),
        "lesionwise_dice": sum(dices) / total if total else 1.0,
        "lesionwise_hd95_mm": (sum(hd95s) + NO_DISTANCE_MM * false) / total if total else 0.0,
        "num_tp": found,
        "num_fp": false,
        "num_fn": len(kept) - found,
    }


@dataclass(frozen=True)
class _Counts:
    """Voxels by number."""

    lesions: Mapping[int, int]
    components: Mapping[int, int]
    both: Mapping[tuple[int, int], int]

    @classmethod
    def of(cls, lesions: np.ndarray, components: np.ndarray) -> "_Counts":
        return cls(_voxels(lesions), _voxels(components), _pairs(lesions, components))

    def dice(self, lesion: int, matched: Sequence[int]) -> float:
        """Of a lesion and the components that match it, as one."""
        overlap = sum(self.both.get((lesion, component), 0) for component in matched)
        return 2 * overlap / (self.lesions[lesion] + sum(self.components[component] for component in matched))


def _dilated(reference: np.ndarray) -> np.ndarray:
    """3 times with the 18-neighbour element; within the volume, whose border nothing connects beyond."""
    grown = np.zeros_like(reference)
    if reference.any():
        box = bounding_box(reference, DILATIONS)
        element = ndimage.generate_binary_structure(3, 2)
        grown[box] = ndimage.binary_dilation(reference[box], element, iterations=DILATIONS)
    return grown


def _connected(mask: np.ndarray) -> np.ndarray:
    """Components with 26 neighbours, numbered from 1."""
    # cc3d 4.1 makes too little room for the labels of volumes that are a voxel thick
    padded = cc3d.connected_components(np.pad(mask, 1), connectivity=26)
    numbers: np.ndarray = padded[1:-1, 1:-1, 1:-1].astype(np.int32)
    return numbers


def _voxels(numbers: np.ndarray) -> dict[int, int]:
    return {number: int(count) for number, count in enumerate(np.bincount(numbers[numbers > 0])) if count}


def _pairs(a: np.ndarray, b: np.ndarray) -> dict[tuple[int, int], int]:
    """How many voxels are of both numbers, neither of them 0."""
    inside = (a > 0) & (b > 0)
    factor = int(b.max(initial=0)) + 1
    pairs, counts = np.unique(a[inside].astype(np.int64) * factor + b[inside], return_counts=True)
    return {(int(pair) // factor, int(pair) % factor): int(count) for pair, count in zip(pairs, counts, strict=True)}


def _touching(dilated: np.ndarray, components: np.ndarray) -> dict[int, list[int]]:
    """The components that touch each lesion's dilation."""
    matches: dict[int, list[int]] = defaultdict(list)
    for lesion, component in _pairs(dilated, components):
        matches[lesion].append(component)
    return matches
