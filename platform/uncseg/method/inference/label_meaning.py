"""What a model's labels mean: nnU-Net models trained on the same task may number them in several ways."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from uncseg.tasks.built_in_tasks import built_in, built_in_names, paper_task
from uncseg.tasks.nnunet_dataset import numbers_called, plain
from uncseg.tasks.task import Task

Parts = Mapping[str, set[int]]
"""The labels of each region."""


def known_task(labels: Mapping[str, Any], images: int | None) -> tuple[Task, dict[int, int]] | None:
    """Return the built-in task that has a model's labels, the paper's first, and its number of each of them.

    None where there is none.

    Args:
        labels: as in :func:`label_numbers`.
        images: number of images of a case; None: unknown. Where it is not the task's, sizes of regions tell nothing,
            because a kidney, its masses and a tumour in them have those of BraTS.
    """
    for task in (paper_task(), *map(built_in, built_in_names())):
        if numbers := label_numbers(labels, task, by_sizes=images in (None, len(task.modalities))):
            return task, numbers
    return None


def label_numbers(labels: Mapping[str, Any], task: Task, by_sizes: bool = True) -> dict[int, int] | None:
    """Return the task's number of each of a model's labels; None where they are not those of the task.

    Labels are known by their names or, where dataset.json names regions, by the regions that they lie in.

    Args:
        labels: of dataset.json: the number of each label, or the numbers of each region.
        task: whose names, and ``other_names``, they may have.
        by_sizes: whether regions of other names than the task's are known by their sizes.
    """
    own = {name: value for name, value in labels.items() if value not in (0, [0]) and name != "ignore"}
    if all(isinstance(value, int) for value in own.values()):
        called = zip(own.values(), numbers_called(own, task.labels, task), strict=True)
        numbers = {value: number for value, number in called if number is not None}
        complete = len(own) == len(task.labels) and sorted(numbers.values()) == sorted(task.labels.values())
        return numbers if complete else None
    parts = {name: set(np.atleast_1d(value).tolist()) for name, value in own.items()}
    known = {name: set(numbers) for name, numbers in task.numbers.items()}
    by_names = _paired(parts, known, lambda _, region: region.lower())
    by_names = by_names or _paired(parts, known, lambda _, region: plain(region))
    if by_names or not by_sizes:
        return by_names
    return _paired(parts, known, lambda regions, region: str(len(regions[region])))


def _paired(own: Parts, known: Parts, told: Callable[[Parts, str], str]) -> dict[int, int] | None:
    """Pair the labels that lie in the same regions, where ``told`` says which region is which; None if it cannot."""
    ours, theirs = _together(own, told), _together(known, told)
    sizes = [{key: len(labels) for key, labels in groups.items()} for groups in (ours, theirs)]
    if not ours or sizes[0] != sizes[1]:
        return None
    pairs = {label: number for key, labels in ours.items() for label, number in zip(labels, theirs[key], strict=True)}
    if {frozenset(pairs[label] for label in part) for part in own.values()} != set(map(frozenset, known.values())):
        return None
    return pairs


def _together(parts: Parts, told: Callable[[Parts, str], str]) -> dict[tuple[str, ...], list[int]]:
    """Group labels by the regions that they lie in; empty where two groups would have the same key."""
    within: dict[frozenset[str], list[int]] = {}
    for label in sorted(set[int]().union(*parts.values())):
        within.setdefault(frozenset(name for name, part in parts.items() if label in part), []).append(label)
    by_key = {tuple(sorted(told(parts, name) for name in names)): labels for names, labels in within.items()}
    return by_key if len(by_key) == len(within) else {}


def renumbered(labels: np.ndarray, meaning: Mapping[int, int]) -> np.ndarray:
    """Return a model's label volume with the task's numbers, uint8; ``meaning`` is from :func:`label_numbers`."""
    table = np.zeros(max(meaning) + 1, dtype=np.uint8)
    table[list(meaning)] = list(meaning.values())
    return table[labels]


def region_channels(task: Task, meaning: Mapping[int, int], own_regions: Sequence[Any]) -> list[list[int]]:
    """Return the channels of a model whose probabilities add up to that of each region of the task.

    Args:
        meaning: the task's number of each of the model's labels.
        own_regions: labels of each of the model's regions, in the order of its channels; empty where its channels are
            labels, with the background first.
    """
    if own_regions:
        members = [{meaning[label] for label in np.atleast_1d(part).tolist()} for part in own_regions]
        return [[members.index(set(numbers))] for numbers in task.numbers.values()]
    own = {number: label for label, number in meaning.items()}
    return [[own[number] for number in numbers] for numbers in task.numbers.values()]


def region_probabilities(probabilities: np.ndarray, channels: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the probabilities of regions, (R, D, H, W) float32 in [0, 1].

    Args:
        probabilities: of the model's channels, (C, D, H, W).
        channels: from :func:`region_channels`.
    """
    regions = np.stack([sum(probabilities[channel] for channel in part) for part in channels])
    return regions.astype(np.float32).clip(0, 1)
