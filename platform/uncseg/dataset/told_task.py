"""The task that a folder tells: by nnU-Net's dataset.json, or by the names of its cases; never by values in masks."""

from collections import Counter, defaultdict
from collections.abc import Collection
from itertools import combinations
from pathlib import Path

from uncseg.config.task_files import nnunet_dataset_json, read_dataset_json
from uncseg.dataset.cases import FileNames, ending_of
from uncseg.dataset.folders import walk_folders
from uncseg.dataset.labels import TASK_SETTING
from uncseg.errors import Problem, ProblemsFound, listed
from uncseg.tasks.built_in_tasks import built_in, built_in_names, paper_task
from uncseg.tasks.by_names import tasks_by_names
from uncseg.tasks.task import Task

BY_DATASET_JSON, BY_CASES = "by dataset.json", "by the names of the cases"
TITLE = "It is not clear which task the files belong to."


def describe_task(task: Task, reason: str) -> str:
    """Return a line that says which task holds, and how that is known."""
    return f"task {task.name}{f', {task.title}' if task.title else ''} ({reason})"


def told_task(folder: Path, option: str = "--task") -> tuple[Task, str]:
    """Return the task of a folder, and how it is known; the paper's where nothing tells another.

    Args:
        folder: of cases or masks, or nnU-Net's raw dataset.
        option: by which a user says the task.

    Raises:
        ProblemsFound: dataset.json describes none, or names of cases fit no single one.
    """
    if (file := nnunet_dataset_json(folder)) is not None:
        task, problems = read_dataset_json(file, str(file))
        if task is None:
            raise ProblemsFound(TITLE, problems)
        return task, BY_DATASET_JSON
    return task_of_names(folder, names_in(folder), option)


def names_in(folder: Path) -> set[str]:
    """Return what may be the name of a case: of folders with NIfTI files, and of these files."""
    found, names = set[str](), FileNames.of(paper_task())
    for parent, files in walk_folders(folder, []):
        stems = [name[: -len(ending)] for name in files if (ending := ending_of(name))]
        found.update(stems, [parent.name] if stems else [])
        found.update(split[0] for stem in stems if (split := names.split(stem)))
    return found


def task_of_names(folder: Path, names: Collection[str], option: str) -> tuple[Task, str]:
    """Return the task that names of cases tell, as :func:`told_task` does for their folder."""
    told = _cases_by_tasks(names)
    if not told:
        return paper_task(), "no name tells another"
    unclear = {tasks for tasks in told if not _all_alike(tasks)}
    counts = Counter({task: len(cases) for tasks, cases in told.items() for task in tasks})
    best = [task for task, _ in counts.most_common() if all(_holds(built_in(task), tasks) for tasks in told)]
    if best and not unclear:
        return built_in(best[0]), BY_CASES
    expected = "one task, because labels and lesions have another meaning in another"
    several = f"keep them in a folder per task, or give a task of your own: {option} FILE"
    problems = [
        Problem(
            str(folder),
            f"{_count(cases)} of task {' or '.join(tasks)} by name: {listed(sorted(cases))}",
            expected,
            f"say which one: {option} {_choices(tasks)}" if tasks in unclear and len(told) == 1 else several,
        )
        for tasks, cases in sorted(told.items())
    ]
    raise ProblemsFound(TITLE, problems)


def problems_of_names(folder: Path, case_ids: Collection[str], task: Task) -> list[Problem]:
    """Return a problem per other task that names of cases tell, if it has other labels, regions or lesions.

    A task of one's own holds whatever the names are.
    """
    if not _is_built_in(task):
        return []
    return [
        Problem(
            str(folder),
            f"{_count(cases)} of task {' or '.join(tasks)} by name: {listed(sorted(cases))}",
            f"cases of task {task.name}",
            f"set {TASK_SETTING} to {_choices(tasks) if len(tasks) > 1 else _difference(task, built_in(tasks[0]))}",
        )
        for tasks, cases in sorted(_cases_by_tasks(case_ids).items())
        if not _holds(task, tasks)
    ]


def remarks_on_names(case_ids: Collection[str], task: Task) -> list[str]:
    """Return a sentence where a task of one's own counts lesions in another way than the one that the names tell."""
    if _is_built_in(task):
        return []
    return [
        f"{_count(cases)} of task {' or '.join(tasks)} by name; in task {task.name} {_rule(task)}"
        for tasks, cases in sorted(_cases_by_tasks(case_ids).items())
        if all(built_in(name).lesions != task.lesions for name in tasks)
    ]


def tasks_of_cases(case_ids: Collection[str]) -> set[str]:
    """Return the names of all tasks that names of cases tell."""
    return {task for tasks in _cases_by_tasks(case_ids) for task in tasks}


def _cases_by_tasks(case_ids: Collection[str]) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for case, tasks in tasks_by_names(case_ids).items():
        found[tuple(task.name for task in tasks)].append(case)
    return found


def _is_built_in(task: Task) -> bool:
    return task.name in built_in_names() and task == built_in(task.name)


def _alike(one: Task, other: Task) -> bool:
    """Return whether masks of one task can be read and scored under another."""
    return one.same_meaning(other) and one.lesions == other.lesions


def _all_alike(names: Collection[str]) -> bool:
    return all(_alike(built_in(one), built_in(other)) for one, other in combinations(names, 2))


def _holds(task: Task, told: Collection[str]) -> bool:
    """Return whether a built-in task is the one that names tell, or alike every one that they may mean."""
    return task.name in told or all(_alike(task, built_in(name)) for name in told)


def _choices(tasks: Collection[str]) -> str:
    return " or ".join(f"{task} ({built_in(task).describe_labels()})" for task in tasks)


def _difference(task: Task, other: Task) -> str:
    """Return the other task, and what is another in it."""
    return _choices([other.name]) if not task.same_meaning(other) else f"{other.name} ({_rule(other)})"


def _rule(task: Task) -> str:
    rule = task.lesions
    dilations = f"{rule.dilations} dilation{'s' * (rule.dilations != 1)}"
    return f"lesions are counted with {dilations} above {rule.smallest_mm3:g} mm³"


def _count(cases: Collection[str]) -> str:
    return f"{len(cases)} case{'s' * (len(cases) != 1)}"
