"""Scoring pairs of masks: ours against the challenge's algorithm, written plainly.

    python tests/performance/score.py PREDICTIONS REFERENCES [--runs 3]

The peer follows the public BraTS-2023 script step by step (github.com/rachitsaluja/BraTS-2023-Metrics): whole volumes
from first to last, and for every lesion of the reference a dilation, a search for the prediction's components and a
distance transform over all of it. It is our own plain version: surfaces and distances are found by the definition of
DeepMind's surface-distance, with scipy, in the bounding box of both masks, as that library does. Both read the same
files and score the regions of their task; the largest difference between their figures is in the JSON.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import statistics
import time
from argparse import ArgumentParser
from pathlib import Path

import cc3d
import nibabel as nib
import numpy as np
from scipy import ndimage

from uncseg.evaluation.find_pairs import find_pairs
from uncseg.evaluation.pairs import Pair, score_pair
from uncseg.evaluation.surface import corner_areas
from uncseg.tasks.fields import LesionRule

Scores = dict[tuple[str, str], float]


def read(file: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Labels as float64, as the script has them, and the spacing."""
    image = nib.load(file)
    labels = image.get_fdata()
    labels[labels == 4] = 3
    return labels, tuple(float(step) for step in image.header.get_zooms())


def distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """HD95 by distance transforms in the box around both masks."""
    if not a.any() or not b.any():
        return 374.0 if a.any() or b.any() else 0.0
    inside = np.nonzero(a | b)
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in inside)
    kernel = np.array([[[1, 2], [4, 8]], [[16, 32], [64, 128]]])
    codes = [
        ndimage.correlate(np.pad(mask[box], ((0, 1),) * 3).astype(np.uint8), kernel, mode="constant") for mask in (a, b)
    ]
    borders = [(code != 0) & (code != 255) for code in codes]
    maps = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    table = corner_areas(spacing)
    found = []
    for border, code, other in ((borders[0], codes[0], maps[1]), (borders[1], codes[1], maps[0])):
        pairs = np.array(sorted(zip(other[border], table[code[border]], strict=True)))
        share = np.cumsum(pairs[:, 1]) / pairs[:, 1].sum()
        found.append(pairs[min(int(np.searchsorted(share, 0.95)), len(pairs) - 1), 0])
    return float(max(found))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks, not both empty."""
    return 2.0 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


def ratios(expected: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Sensitivity and specificity over the whole volume."""
    tp = np.logical_and(expected == 1, found == 1).sum()
    fp, fn = found.sum() - tp, expected.sum() - tp
    tn = np.count_nonzero((found != 1) & (expected != 1))
    empty = not expected.any() and not found.any()
    return {"sensitivity": 1.0 if empty else tp / max(tp + fn, 1), "specificity": tn / (tn + fp)}


def plain(pair: Pair) -> Scores:
    """What the script computes for a pair; it reads both files anew for every region."""
    scores: Scores = {}
    for region, labels in pair.task.numbers.items():
        reference, spacing = read(pair.reference)
        prediction, _ = read(pair.prediction)
        expected, found = (np.isin(array, labels).astype(np.float64) for array in (reference, prediction))
        figures = {
            "dice": overlap(expected, found) if expected.any() or found.any() else 1.0,
            "hd95_mm": distances(expected > 0, found > 0, spacing),
            **ratios(expected, found),
            **plain_lesions(expected, found, spacing, pair.task.lesions),
        }
        scores |= {(region, name): float(value) for name, value in figures.items()}
    return scores


def plain_lesions(
    expected: np.ndarray, found: np.ndarray, spacing: tuple[float, ...], rule: LesionRule
) -> dict[str, float]:
    """Every lesion with whole volumes."""
    element = ndimage.generate_binary_structure(3, 2)
    components = cc3d.connected_components(found.astype(np.uint8), connectivity=26)
    dilated = ndimage.binary_dilation(expected, structure=element, iterations=rule.dilations)
    merged_areas = cc3d.connected_components(dilated.astype(np.uint8), connectivity=26)
    lesions = np.zeros_like(merged_areas)
    for number in range(1, int(merged_areas.max()) + 1):
        lesions[(merged_areas == number) & (expected > 0)] = number
    dices, distances_mm, touched = [], [], []
    for number in range(1, int(lesions.max()) + 1):
        mask = lesions == number
        near = ndimage.binary_dilation(mask, structure=element, iterations=rule.dilations)
        matched = np.unique(components * near)
        matched = matched[matched != 0]
        touched += matched.tolist()
        merged = np.isin(components, matched)
        score, distance = overlap(merged, mask), distances(mask, merged, spacing)
        if mask.sum() * np.prod(spacing) > rule.smallest_mm3:
            dices.append(score)
            distances_mm.append(distance)
    false = len(np.unique(components[np.isin(components, [*touched, 0], invert=True)]))
    count = len(dices) + false
    return {
        "lesionwise_dice": sum(dices) / count if count else 1.0,
        "lesionwise_hd95_mm": (sum(distances_mm) + 374 * false) / count if count else 0.0,
    }


def ours(pair: Pair) -> Scores:
    """All that ``uncseg score`` computes, of which the script's figures are a part."""
    return {
        (row["region"], name): row[name]
        for row in score_pair(pair, "unit")
        for name in ("dice", "hd95_mm", "sensitivity", "specificity", "lesionwise_dice", "lesionwise_hd95_mm")
    }


def main() -> None:
    """Measure both on one core, in turn, pair by pair."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    pairs = find_pairs(options.predictions, options.references).complete
    rounds, worst = [], 0.0
    for run in range(options.runs):
        seconds = [0.0, 0.0]
        for pair in pairs:
            results = []
            for n, score in enumerate((ours, plain)):
                started = time.perf_counter()
                results.append(score(pair))
                seconds[n] += time.perf_counter() - started
            worst = max(worst, *(abs(results[0][key] - results[1][key]) for key in results[1]))
        rounds.append(seconds)
        print(f"run {run + 1}: ours {seconds[0]:.1f} s, plain {seconds[1]:.1f} s", flush=True)
    mine, peer = (statistics.median(values) for values in zip(*rounds, strict=True))
    result = {"measured": "score", "ours": round(mine, 2), "peer": round(peer, 2), "ratio": round(mine / peer, 4)}
    print(json.dumps({**result, "unit": "s", "runs": options.runs, "cases": len(pairs), "largest_difference": worst}))


if __name__ == "__main__":
    main()
