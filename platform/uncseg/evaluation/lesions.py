"""Lesion-wise scores as in BraTS 2023: each lesion is scored on its own, and each false lesion counts.

What one lesion is, and how large it has to be, is the task's rule.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage

from uncseg.evaluation.surface import NO_DISTANCE_MM, SurfaceDistances, bounding_box
from uncseg.tasks.fields import LesionRule


def lesionwise(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], rule: LesionRule
) -> dict[str, Any]:
    """Return lesion-wise Dice and HD95 (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics).

    A lesion is the reference inside one connected component of the reference dilated with the 18-neighbour element.
    Components of the prediction (26 neighbours) that touch this dilation are matched as a whole; a component may match
    several lesions. Lesions that are not larger than the smallest volume are left out, and so are components that match
    no others.

    Args:
        reference, prediction: bool, 3D, the same shape; a part of a volume needs room for the dilation as far as the
            volume has it.
        spacing_mm: along the array's axes.
        rule: number of dilations, and the smallest volume.

    Returns:
        ``hd95_mm`` of the whole masks; ``lesionwise_dice`` in [0, 1] and ``lesionwise_hd95_mm``; ``num_tp``, ``num_fp``
        and ``num_fn``: lesions found, components that match none, lesions missed. Without anything on either side these
        are 0 mm, 1, 0 mm and no lesion.
    """
    dilated = _connected(_dilated(reference, rule.dilations))
    lesions, components = np.where(reference, dilated, 0), _connected(prediction)
    distances = SurfaceDistances(lesions, components, spacing_mm)
    lesion_voxels, component_voxels = _voxels(lesions), _voxels(components)
    overlaps = _pairs(lesions, components)
    matches: dict[int, list[int]] = defaultdict(list)  # components that touch each lesion's dilation
    for touched, component in _pairs(dilated, components):
        matches[touched].append(component)

    def dice(lesion: int) -> float:
        """Dice of a lesion and the components that match it, taken together."""
        overlap = sum(overlaps.get((lesion, component), 0) for component in matches[lesion])
        matched = sum(component_voxels[component] for component in matches[lesion])
        return 2 * overlap / (lesion_voxels[lesion] + matched)

    smallest = rule.smallest_mm3 / float(np.prod(spacing_mm))
    kept = [lesion for lesion, voxels in lesion_voxels.items() if voxels > smallest]
    hd95s = [distances.hd95_of_parts(lesion, matches[lesion]) for lesion in kept]
    found = sum(bool(matches[lesion]) for lesion in kept)
    false = len(component_voxels.keys() - set(itertools.chain(*matches.values())))
    total = len(kept) + false
    return {
        "hd95_mm": distances.hd95_mm(),
        "lesionwise_dice": sum(map(dice, kept)) / total if total else 1.0,
        "lesionwise_hd95_mm": (sum(hd95s) + NO_DISTANCE_MM * false) / total if total else 0.0,
        "num_tp": found,
        "num_fp": false,
        "num_fn": len(kept) - found,
    }


def _dilated(reference: np.ndarray, dilations: int) -> np.ndarray:
    """Dilate with the 18-neighbour element, inside the volume, beyond whose border nothing is connected."""
    if not dilations or not reference.any():  # 0 iterations would go on until nothing changes
        return reference
    grown = np.zeros_like(reference)
    box = bounding_box(reference, dilations)
    element = ndimage.generate_binary_structure(3, 2)
    grown[box] = ndimage.binary_dilation(reference[box], element, iterations=dilations)
    return grown


def _connected(mask: np.ndarray) -> np.ndarray:
    """Return the components with 26 neighbours, numbered from 1."""
    # cc3d 4.1 makes too little room for the labels of volumes that are one voxel thick
    padded = cc3d.connected_components(np.pad(mask, 1), connectivity=26)
    numbers: np.ndarray = padded[1:-1, 1:-1, 1:-1].astype(np.int32)
    return numbers


def _voxels(numbers: np.ndarray) -> dict[int, int]:
    """Return how many voxels each number but 0 has."""
    return {number: int(count) for number, count in enumerate(np.bincount(numbers[numbers > 0])) if count}


def _pairs(a: np.ndarray, b: np.ndarray) -> dict[tuple[int, int], int]:
    """Return how many voxels have each pair of numbers, neither of them 0."""
    inside = (a > 0) & (b > 0)
    factor = int(b.max(initial=0)) + 1
    pairs, counts = np.unique(a[inside].astype(np.int64) * factor + b[inside], return_counts=True)
    return {(int(pair) // factor, int(pair) % factor): int(count) for pair, count in zip(pairs, counts, strict=True)}
