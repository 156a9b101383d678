"""The built-in tasks, those of the BraTS challenges: one YAML file each, and which of them names of cases tell."""

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

import yaml

from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.tasks.task import Task

FOLDER = Path(__file__).parent / "built_in"
PAPER = "gli-2023"
"""The task of the paper, which holds where nothing else is said."""
_DOES_NOT_FIT = "The task does not fit the files."


@cache
def built_in_names() -> tuple[str, ...]:
    """Return the names of the built-in tasks, sorted."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


@cache
def built_in(name: str) -> Task:
    """Return a built-in task.

    Raises:
        ProblemsFound: there is none of this name.
    """
    if name not in built_in_names():
        expected, advice = f"one of {', '.join(built_in_names())}", "correct it, or name a YAML file"
        raise ProblemsFound("There is no such task.", [Problem("task", name, expected, advice)])
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Task.model_validate({"name": name, **content})


def paper_task() -> Task:
    """Return the task of the paper."""
    return built_in(PAPER)


def tasks_by_names(case_ids: Collection[str]) -> dict[str, tuple[Task, ...]]:
    """Return the built-in tasks that each case's name may belong to; names that tell none are left out."""
    patterns = [(task, re.compile(task.cases, re.IGNORECASE)) for task in map(built_in, built_in_names()) if task.cases]
    told = {case: tuple(task for task, pattern in patterns if pattern.fullmatch(case)) for case in case_ids}
    return {case: tasks for case, tasks in told.items() if tasks}


def agree(one: Task, other: Task) -> bool:
    """Return whether labels mean the same in two tasks, and lesions are counted alike."""
    return one.same_meaning(other) and one.lesions == other.lesions


def is_built_in(task: Task) -> bool:
    """Return whether a task is a built-in one, and not one of one's own of this name."""
    return task.name in built_in_names() and agree(task, built_in(task.name))


def task_of_names(case_ids: Collection[str], where: str, setting: str) -> Task | None:
    """Return the built-in task that names of cases tell; the paper's where it agrees with that.

    Args:
        case_ids: names of all cases of a folder, or of two that belong together.
        where: the folder, for the problem.
        setting: where a user says which task it is.

    Returns:
        None where no name tells a task.

    Raises:
        ProblemsFound: names tell tasks that do not agree (exit code 2).
    """
    told = tasks_by_names(case_ids)
    possible = {task.name: task for tasks in told.values() for task in tasks}
    if not told:
        return None
    _refuse_unclear(told, where, setting)
    fitting = [
        task for task in possible.values() if all(any(agree(task, one) for one in tasks) for tasks in told.values())
    ]
    if not fitting:
        found = " and ".join(f"names of {_names(tasks)} ({case})" for case, tasks in _one_of_each(told).items())
        problem = Problem(where, found, "cases of one task", "keep them in folders of their own")
        raise ProblemsFound(_DOES_NOT_FIT, [problem])
    paper = paper_task()
    return paper if agree(paper, fitting[0]) else fitting[0]


def _refuse_unclear(told: dict[str, tuple[Task, ...]], where: str, setting: str) -> None:
    """Refuse names that may be of several tasks which do not agree, whatever the names of other cases tell."""
    unclear = {case: tasks for case, tasks in told.items() if not all(agree(tasks[0], task) for task in tasks)}
    problems = [
        Problem(
            where,
            f"names of {_names(tasks)}, in which labels or lesions differ ({case})",
            "one task: " + " or ".join(f"{task.name} ({task.describe_labels()})" for task in tasks),
            f"set {setting} to {' or '.join(task.name for task in tasks)}",
        )
        for case, tasks in _one_of_each(unclear).items()
    ]
    raise_if_any(problems, "It is not clear which task it is.")


def require_names_fit(case_ids: Collection[str], task: Task, where: str, setting: str) -> None:
    """Refuse a built-in task where names of cases tell another one; a task of one's own may have any names.

    Args:
        task: that was set.
        case_ids, where, setting: see :func:`task_of_names`.

    Raises:
        ProblemsFound: naming each other task (exit code 2).
    """
    if not is_built_in(task):
        return
    others = {case: tasks for case, tasks in tasks_by_names(case_ids).items() if not _allow(tasks, task)}
    problems = [
        Problem(
            where,
            f"names of {_names(tasks)} ({case})",
            f"cases of task {task.name} ({_meaning(task)}), and in {tasks[-1].name} it is {_meaning(tasks[-1])}",
            f"set {setting} to {' or '.join(other.name for other in tasks)}",
        )
        for case, tasks in _one_of_each(others).items()
    ]
    raise_if_any(problems, _DOES_NOT_FIT)


def _allow(told: Collection[Task], task: Task) -> bool:
    """Return whether names that tell some tasks may be of the task that was set: one of them, or like each."""
    return any(task.name == other.name for other in told) or all(agree(task, other) for other in told)


def _one_of_each(told: dict[str, tuple[Task, ...]]) -> dict[str, tuple[Task, ...]]:
    """Return one case for each set of tasks that are told."""
    first = {tuple(task.name for task in tasks): case for case, tasks in reversed(told.items())}
    return {case: told[case] for case in sorted(first.values())}


def _meaning(task: Task) -> str:
    return f"{task.describe_labels()}; {task.lesions}"


def _names(tasks: Collection[Task]) -> str:
    return f"task{'s' * (len(tasks) > 1)} {' and '.join(task.name for task in tasks)}"
