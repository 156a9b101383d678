"""What a model's labels mean: nnU-Net models trained on BraTS number them in several ways."""

import re
from typing import Any

import numpy as np

from uncseg.dataset.labels import LABELS, REGIONS
from uncseg.errors import Problem, ProblemsFound

_NAMES = {
    "NCR": "ncr ncrnet net netc necrosis necrotic necroticcore necrotictumor necrotictumour necrotictumorcore "
    "nonenhancing nonenhancingtumor nonenhancingtumour nonenhancingtumorcore nonenhancingtumourcore",
    "ED": "ed edema oedema peritumoraledema peritumoraledematoustissue snfh invadedtissue",
    "ET": "et at enhancing enhancingtumor enhancingtumour enhancingtissue gdenhancingtumor gdenhancingtumour",
}


def brats_labels(dataset_json: dict[str, Any], where: str) -> dict[int, int]:
    """Map each of a model's labels to that of BraTS 2023 (1 NCR, 2 ED, 3 ET).

    dataset.json names labels, or three regions of three, two and one label, each within the one before (WT, TC, ET).

    Raises:
        ProblemsFound: the model, which is named by ``where``, has other labels.
    """
    named = dataset_json["labels"].items()
    labels = {name: value for name, value in named if value not in (0, [0]) and name != "ignore"}
    nested = sorted((set(np.atleast_1d(value).tolist()) for value in labels.values()), key=len)
    if [len(part) for part in nested] == [1, 2, 3] and nested[0] < nested[1] < nested[2]:
        et, tc, wt = nested
        return {min(tc - et): LABELS["NCR"], min(wt - tc): LABELS["ED"], min(et): LABELS["ET"]}
    meaning = {}
    for name, value in labels.items():
        plain = re.sub("[^a-z]", "", name.lower())
        found = [region for region, names in _NAMES.items() if plain in names.split()]
        if found and isinstance(value, int):
            meaning[value] = LABELS[found[0]]
    if len(labels) != len(LABELS) or sorted(meaning.values()) != sorted(LABELS.values()):
        expected = "NCR, ED and ET by these or their usual names, or the regions WT, TC and ET"
        advice = "give a model of BraTS, or correct the names in its dataset.json"
        problem = Problem(f"{where}: dataset.json", f"labels {labels}", expected, advice)
        raise ProblemsFound("The model cannot be used.", [problem])
    return meaning


def as_brats(labels: np.ndarray, meaning: dict[int, int]) -> np.ndarray:
    """Return a model's label volume with the labels of BraTS 2023, uint8."""
    table = np.zeros(int(max(meaning)) + 1, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    return table[labels]


def region_probabilities(probabilities: np.ndarray, foreground: list[Any], meaning: dict[int, int]) -> np.ndarray:
    """Return the probabilities of WT, TC, ET, (3, D, H, W) float32 in [0, 1].

    Args:
        probabilities: (C, D, H, W): of the classes with the background first, or of regions.
        foreground: nnU-Net's foreground regions (tuples of labels), or its foreground labels.
        meaning: from :func:`brats_labels`.
    """
    if len(probabilities) == len(foreground):  # regions have no channel for the background
        members = [{meaning[label] for label in np.atleast_1d(part).tolist()} for part in foreground]
        channels = [members.index(set(labels)) for labels in REGIONS.values()]
        return probabilities[channels].astype(np.float32)
    classes = {meaning[label]: probabilities[label] for label in meaning}
    regions = np.stack([sum(classes[label] for label in labels) for labels in REGIONS.values()])
    return regions.astype(np.float32).clip(0, 1)
