"""What the values in a mask mean: the labels of a task, by one of its conventions.

The meaning of a value is never guessed. In BraTS 4 is enhancing tumour in the files of 2018 to 2021, and a resection
cavity or oedema in those of 2024, so the convention is decided once per folder: by the task, by the names of the files,
or by a setting.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uncseg.dataset.finite import count_not_finite
from uncseg.errors import Problem, ProblemsFound
from uncseg.tasks.built_in_tasks import built_in, built_in_names, tasks_by_names
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.task import Task

if TYPE_CHECKING:  # its module imports ITK and nibabel, which takes half a second
    from uncseg.dataset.volumes import Volume

AS_SET, AS_NAMED, BY_DATASET_JSON = "as set", "by the names of the files", "by dataset.json"
"""How a convention or a task is known."""
ROUNDING = 1e-3
"""Largest distance from a whole number at which a label is rounded: scale factors make 1.00000002 of 1."""
_SHOWN = 5
SETTING, TASK_SETTING = "dataset.convention or --convention", "dataset.task or --task"


def title_of(task: Task, convention: ConventionName) -> str:
    """Return what a convention is called in messages: by its title, else by its task's name."""
    return task.conventions[convention].title or f"task {task.name}"


def describe_convention(convention: ConventionName, reason: str, task: Task) -> str:
    """Return a line that says what the labels of a folder mean, and how that is known."""
    return f"labels of {title_of(task, convention)}: {task.describe_labels(convention)} ({reason})"


def as_convention(text: str | None, option: str, task: Task) -> ConventionName | None:
    """Return the convention of a task that an option names.

    Raises:
        ProblemsFound: the task has none of this name.
    """
    if text is None or text in task.conventions:
        return text
    known = [
        f"{name} (labels {', '.join(map(str, task.values(name).values()))})" if len(task.labels) <= _SHOWN else name
        for name in task.conventions
    ]
    problem = Problem(option, text, f"{' or '.join(known)}, as task {task.name} knows them", "give one of them")
    raise ProblemsFound("The labels cannot be read.", [problem])


def convert_labels(
    volume: "Volume", convention: ConventionName, problems: list[Problem], setting: str = SETTING, *, task: Task
) -> np.ndarray | None:
    """Return labels as the task numbers them, (D, H, W) uint8; or add the problem of other values and return None.

    Args:
        volume: values of the convention, or within :data:`ROUNDING` of them.
        convention: of the folder; one of the task's.
        problems: gets a problem that names at most five unknown values.
        setting: where a user says that another convention holds.
        task: whose labels they are.
    """
    voxels = rounded(volume.voxels)
    if voxels is None:
        found = f"{count_not_finite(volume.voxels)} voxels that are NaN or infinite"
        problems.append(Problem(str(volume.file), found, "labels", "repair the mask, or exclude the case"))
        return None
    numbers = {0: 0, **{value: task.labels[label] for label, value in task.values(convention).items()}}
    known = sorted(numbers)
    if not np.isin(voxels, known).all():
        problems.append(_unknown_labels(volume, voxels, task, convention, setting))
        return None
    if all(value == number for value, number in numbers.items()):
        return voxels.astype(np.uint8)
    return np.array([numbers[value] for value in known], np.uint8)[np.searchsorted(known, voxels)]


def in_main_region(labels: np.ndarray, task: Task) -> np.ndarray:
    """Return where labels, as the task numbers them, are those of its main region, bool."""
    return np.isin(labels, task.numbers[task.main_region])


def rounded(voxels: np.ndarray) -> np.ndarray | None:
    """Return the values of a mask, rounded within :data:`ROUNDING` of a whole number; None if one is not finite."""
    if voxels.dtype.kind != "f":
        return voxels
    if count_not_finite(voxels):
        return None
    whole = np.rint(voxels)
    return np.where(np.abs(voxels - whole) <= ROUNDING, whole, voxels)


def _unknown_labels(
    volume: "Volume", voxels: np.ndarray, task: Task, convention: ConventionName, setting: str
) -> Problem:
    own = {0, *task.values(convention).values()}
    values, counts = np.unique(voxels, return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    strange = {value: count for value, count in pairs if value not in own}
    found = ", ".join(f"{value:.9g} ({count} voxels)" for value, count in list(strange.items())[:_SHOWN])
    found += f" and {len(strange) - _SHOWN} other values" if len(strange) > _SHOWN else ""
    expected = f"only {known_values(own)} (labels of {title_of(task, convention)})"
    if maybe := _other_meanings(volume.file, values.tolist(), list(strange), task, convention, setting):
        advice = "; ".join(maybe) + f"; else map or remove {'it' if len(strange) == 1 else 'them'}"
    elif len(strange) > _SHOWN:
        advice = "give a mask: this looks like an image"
    elif task.name not in built_in_names() and len({0, *values.tolist()}) <= len(own):
        advice = f"if these are the task's labels, write their values into its conventions.{convention}.values"
    else:
        advice = "map or remove these labels"
    return Problem(str(volume.file), f"label {found}", expected, advice)


def known_values(values: Collection[int]) -> str:
    """Return the values of labels for messages: 0, 1, 2, 3, or 0 to 117."""
    together = len(values) > 2 * _SHOWN and max(values) == len(values) - 1
    return f"0 to {max(values)}" if together else ", ".join(map(str, sorted(values)))


def _other_meanings(
    file: Path,
    values: Collection[float],
    strange: Sequence[float],
    task: Task,
    convention: ConventionName,
    setting: str,
) -> list[str]:
    """Return under which other conventions and tasks a mask has no unknown value, and what these values are there."""
    found = {
        _meanings(strange, task, name): f"{title_of(task, name)}, set {setting} to {name}"
        for name in fitting_conventions(values, task)
    }
    told = tasks_by_names([file.parent.name, case_like(file)])
    possible = {other.name for tasks in told.values() for other in tasks}
    for other in fitting_tasks(values, task, convention):
        if not possible or other.name in possible:
            meant = _meanings(strange, other, other.convention)
            found.setdefault(meant, f"task {other.name}, set {TASK_SETTING} to {other.name}")
    return [f"if {meant}, as in {where}" for meant, where in found.items()]


def _meanings(values: Iterable[float], task: Task, convention: ConventionName) -> str:
    names = {value: name for name, value in task.values(convention).items()}
    return " and ".join(f"{value:g} is {names[int(value)]}" for value in values if value in names)


def fitting_conventions(values: Collection[float], task: Task) -> list[ConventionName]:
    """Return the conventions of a task that know all values of a mask."""
    return [name for name in task.conventions if set(values) <= {0, *task.values(name).values()}]


def fitting_tasks(values: Collection[float], task: Task, convention: ConventionName) -> list[Task]:
    """Return the other built-in tasks that name images as a convention does, and know all values of a mask."""
    others = [built_in(name) for name in built_in_names() if name != task.name]
    names = task.conventions[convention].images
    return [
        other
        for other in others
        if other.conventions[other.convention].images == names
        and other.convention in fitting_conventions(values, other)
    ]


def case_like(file: Path) -> str:
    """Return what a mask's name may tell of its case: the name up to -seg, _seg or .nii."""
    return re.split(r"[-_]seg\.|\.nii", file.name, maxsplit=1, flags=re.IGNORECASE)[0]
