"""The task that nnU-Net's dataset.json describes, and what the names in such a file are in another task."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from uncseg.errors import Problem
from uncseg.tasks.task import Task

CONVENTION = "nnunet"
CHANNELS = ("channel_names", "modality")
FIELDS = "channel_names and labels, as nnU-Net writes them"


def task_of_dataset_json(content: Any, where: str, name: str = "nnunet") -> tuple[Task | None, list[Problem]]:
    """Return the task of a dataset.json, and what is wrong with it.

    Regions are nnU-Net's, where it has any, and otherwise all labels together as ``foreground``, then each label.

    Args:
        content: of the file. The Medical Segmentation Decathlon's lists names by number.
        where: the file, for the problems.
        name: of the task.
    """
    channels, labels = _by_name(content, *CHANNELS), _by_name(content, "labels")
    numbers = [*channels.values(), *(n for value in labels.values() for n in _as_list(value))]
    if not channels or not labels or not all(isinstance(number, int) for number in numbers):
        found = listing(content)
        return None, [Problem(where, found, FIELDS, "correct the file, or name a task: dataset.task or --task")]
    if wrong := _problems_of_names(content, channels, labels):
        return None, [Problem(where, found, FIELDS, "correct the file") for found in wrong]
    if "ignore" in labels:
        expected = "labels of every voxel"
        return None, [Problem(where, "a label ignore", expected, "uncseg has no ignored voxels: label them, or give 0")]
    modalities = [as_word(channel) for channel in sorted(channels, key=channels.__getitem__)]
    labels = {as_word(label): value for label, value in labels.items() if value not in (0, [0])}
    fields: dict[str, Any] = {"name": name, "title": str(content.get("description") or ""), "modalities": modalities}
    if all(isinstance(value, int) for value in labels.values()):
        fields["labels"] = dict(sorted(labels.items(), key=lambda item: item[1]))
    else:
        parts = {region: sorted(_as_list(value)) for region, value in labels.items()}
        numbers = sorted({number for part in parts.values() for number in part})
        named = {number: _label_name(number, parts) for number in numbers}
        fields["labels"] = {named[number]: number for number in numbers}
        fields["regions"] = {region: [named[number] for number in part] for region, part in parts.items()}
    images = {modality: f"_{number:04d}" for number, modality in enumerate(modalities)}
    fields["conventions"] = {CONVENTION: {"title": "nnU-Net", "images": images, "mask": "-seg"}}
    try:
        return Task.model_validate(fields), []
    except ValidationError as error:
        found = "; ".join(
            line for item in error.errors() for line in item["msg"].removeprefix("Value error, ").split("\n")
        )
        return None, [Problem(where, found, "a dataset that nnU-Net can train", "correct the file")]


def _problems_of_names(content: Mapping[str, Any], channels: Mapping[str, int], labels: Mapping[str, Any]) -> list[str]:
    """Return which channels have no file, and which names of channels or labels become one name."""
    problems = []
    listed = next(len(content[field]) for field in CHANNELS if isinstance(content.get(field), Mapping))
    if listed == len(channels) and sorted(channels.values()) != list(range(listed)):
        found = ", ".join(f"{name} {number}" for name, number in channels.items())
        problems.append(f"channels {found}, and nnU-Net numbers them from 0 without a gap")
    elif listed != len(channels):
        problems.append(f"channels {', '.join(channels)}, of which one is there twice")
    for what, names in (("channels", channels), ("labels", labels)):
        words: dict[str, str] = {}
        for name in names:
            if (other := words.setdefault(as_word(name).lower(), name)) != name:
                problems.append(f"{what} {other} and {name}, which both become {as_word(name)}")
    return problems


def as_word(name: str) -> str:
    """Return a name of nnU-Net's as one of a task: other characters than letters and digits become underscores."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "unnamed"


def modalities_of(channels: Sequence[str], task: Task) -> list[int | None]:
    """Return the number of the task's modality that each channel is called by, by one of its names; None of others."""
    return numbers_called(channels, {modality: number for number, modality in enumerate(task.modalities)}, task)


def numbers_called(names: Iterable[str], numbers: Mapping[str, int], task: Task) -> list[int | None]:
    """Return which of a task's labels or modalities, given by their numbers, each name means; None of others."""
    own, known = {name.lower(): number for name, number in numbers.items()}, by_all_names(numbers, task)
    return [own.get(name.lower(), known.get(plain(name))) for name in names]  # its own name first: t_1 and t1


def by_all_names(numbers: Mapping[str, int], task: Task) -> dict[str, int]:
    """Return numbers of labels or modalities of a task by all names that these have, as :func:`plain` writes them."""
    return {plain(name): number for own, number in numbers.items() for name in (*task.other_names.get(own, ()), own)}


def plain(name: str) -> str:
    """Return a name in lower case, without other characters than letters and digits."""
    return re.sub("[^a-z0-9]", "", name.lower())


def listing(content: Any) -> str:
    """Return the names of a file's fields, for messages."""
    return "the fields " + ", ".join(map(str, content)) if isinstance(content, Mapping) and content else "no fields"


def _label_name(number: int, regions: Mapping[str, list[int]]) -> str:
    """Return the name of the region that holds this label alone, or label_NUMBER."""
    return next((region for region, part in regions.items() if part == [number]), f"label_{number}")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _by_name(content: Any, *fields: str) -> dict[str, Any]:
    """Return a field's numbers by name, whichever way round it lists them; empty where it is not there."""
    if not isinstance(content, Mapping):
        return {}
    listed: Mapping[Any, Any] = next(
        (content[field] for field in fields if isinstance(content.get(field), Mapping)), {}
    )
    if listed and all(str(key).isdecimal() for key in listed):
        return {str(name): int(number) for number, name in listed.items()}
    return {str(name): value for name, value in listed.items()}
