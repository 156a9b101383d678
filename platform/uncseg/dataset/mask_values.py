"""Which task and convention the masks of a folder fit together, where some do not fit the one that was chosen."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from uncseg.dataset.labels import (
    SETTING,
    TASK_SETTING,
    fitting_conventions,
    fitting_tasks,
    known_values,
    rounded,
    title_of,
)
from uncseg.dataset.volumes import read_or_note
from uncseg.errors import Problem, listed
from uncseg.tasks.built_in_tasks import tasks_by_names
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.task import Task

_LISTED = 20
"""Cases that are named per value."""


def values_of_mask(file: Path) -> frozenset[float] | None:
    """Return the values in a mask, 0 among them; None if it cannot be read or holds too many to be labels."""
    volume = read_or_note(file, [])
    voxels = None if volume is None else rounded(volume.voxels)
    values = [] if voxels is None else np.unique(voxels).tolist()
    return frozenset({0, *values}) if 0 < len(values) <= 256 else None


def problems_of_values(
    folder: Path, masks: Mapping[str, frozenset[float]], task: Task, convention: ConventionName
) -> list[Problem]:
    """Return what all masks together say, where one of them has values that the task's convention does not know.

    That is one problem: the values of all masks and what knows them, or the cases of each value if nothing does.

    Args:
        folder: of the cases.
        masks: values by case.
        task, convention: that were chosen.
    """
    together = frozenset[float]().union(*masks.values())
    own = {0, *task.values(convention).values()}
    refused = {case: values for case, values in masks.items() if not values <= own}
    if not refused or len(masks) == 1:
        return []
    expected = f"only {known_values(own)} (labels of {title_of(task, convention)})"
    if fits := _fitting(together, list(masks), task, convention):
        found = f"labels {_text(together)} in all masks together"
        return [Problem(str(folder), found, expected, f"all masks fit {' and '.join(fits)}; choose what they are")]
    elsewhere = {value for values in refused.values() for value in values} - own
    alone = set[float]()
    for values in refused.values():
        for name in fitting_conventions(values, task):
            alone |= own - {0, *task.values(name).values()}
        for other in fitting_tasks(values, task, convention):
            alone |= own - {0, *other.values(other.convention).values()}
    by_value: dict[float, list[str]] = defaultdict(list)
    for case, values in sorted(masks.items()):
        for value in values & (elsewhere | alone):
            by_value[value].append(case)
    if not alone.intersection(by_value):
        return []
    found = "; ".join(f"label {value:g} in {listed(by_value[value], _LISTED)}" for value in sorted(by_value))
    advice = "the masks fit no single task: keep those of each meaning in a folder of their own"
    return [Problem(str(folder), found, "labels of one task in all masks", advice)]


def _fitting(values: frozenset[float], case_ids: list[str], task: Task, convention: ConventionName) -> list[str]:
    told = {other.name for tasks in tasks_by_names(case_ids).values() for other in tasks}
    conventions = [name for name in fitting_conventions(values, task) if name != convention]
    tasks = [other.name for other in fitting_tasks(values, task, convention) if not told or other.name in told]
    return [f"{title_of(task, name)} ({SETTING} {name})" for name in conventions] + [
        f"task {name} ({TASK_SETTING} {name})" for name in tasks
    ]


def _text(values: frozenset[float]) -> str:
    return ", ".join(f"{value:.9g}" for value in sorted(values))
