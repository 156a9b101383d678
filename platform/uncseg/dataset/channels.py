"""Names of channels and labels in nnU-Net's files, and what they are in a task."""

import re
from collections.abc import Mapping, Sequence

from uncseg.tasks.task import Task


def modalities_of(channels: Sequence[str], task: Task) -> list[int | None]:
    """Return the number of the task's modality that each channel is called by, by one of its names; None of others."""
    names = by_all_names({modality: number for number, modality in enumerate(task.modalities)}, task)
    own = {modality.lower(): number for number, modality in enumerate(task.modalities)}
    return [own.get(channel.lower(), names.get(plain(channel))) for channel in channels]  # its own name first


def by_all_names(numbers: Mapping[str, int], task: Task) -> dict[str, int]:
    """Return numbers of labels or modalities of a task by all names that these have, as :func:`plain` writes them."""
    return {plain(name): number for own, number in numbers.items() for name in (*task.other_names.get(own, ()), own)}


def plain(name: str) -> str:
    """Return a name in lower case, without other characters than letters and digits."""
    return re.sub("[^a-z0-9]", "", name.lower())
