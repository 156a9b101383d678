"""The task that a folder tells: by nnU-Net's dataset.json, or by the names of its cases; never by values in masks."""

from collections.abc import Collection
from pathlib import Path

from uncseg.config.task_files import OPTION, nnunet_dataset_json, read_dataset_json
from uncseg.dataset.cases import FileNames, stem_of
from uncseg.dataset.folders import walk_folders
from uncseg.dataset.labels import BY_DATASET_JSON
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import is_built_in, paper_task, task_of_names, tasks_by_names
from uncseg.tasks.task import Task

BY_CASES = "by the names of the cases"


def describe_task(task: Task, reason: str) -> str:
    """Return a line that says which task holds, and how that is known."""
    return f"task {task.name}{f', {task.title}' if task.title else ''} ({reason})"


def told_task(folder: Path) -> tuple[Task, str]:
    """Return the task of a folder, and how it is known; the paper's where nothing tells another.

    Args:
        folder: of cases or masks, or nnU-Net's raw dataset.

    Raises:
        ProblemsFound: dataset.json describes none (exit code 1), or names of cases fit no single one (2).
    """
    if (file := nnunet_dataset_json(folder)) is not None:
        task, problems = read_dataset_json(file, str(file))
        if task is None:
            raise ProblemsFound(f"The dataset {folder} cannot be used.", problems, exit_code=1)
        return task, BY_DATASET_JSON
    found = task_of_names(sorted(names_in(folder)), str(folder), OPTION)
    return (paper_task(), "no name tells another") if found is None else (found, BY_CASES)


def names_in(folder: Path) -> set[str]:
    """Return what may be the name of a case: of folders with NIfTI files, and of these files."""
    found, names = set[str](), FileNames.of(paper_task())
    for parent, files in walk_folders(folder, []):
        stems = [stem for name in files if (stem := stem_of(name))]
        found.update(stems, [parent.name] if stems else [])
        found.update(split[0] for stem in stems if (split := names.split(stem)))
    return found


def remarks_on_names(case_ids: Collection[str], task: Task) -> list[str]:
    """Return a sentence where a task of one's own counts lesions in another way than the one that the names tell."""
    told = tasks_by_names(case_ids)
    others = [(case, one) for case, tasks in sorted(told.items()) for one in tasks if one.lesions != task.lesions]
    if is_built_in(task) or not others:
        return []
    case, other = others[0]
    return [f"{case} is a name of task {other.name}, and task {task.name} counts {task.lesions}"]


def names_of_other_tasks(case_ids: Collection[str], task: Task) -> list[str]:
    """Return a sentence on cases to predict whose names tell other tasks than that of the model."""
    told = tasks_by_names(case_ids)
    others = {case: tasks for case, tasks in sorted(told.items()) if task.name not in [one.name for one in tasks]}
    if not others:
        return []
    names = " and ".join(dict.fromkeys(one.name for tasks in others.values() for one in tasks))
    what = f"{len(others)} case{'s' * (len(others) != 1)}, such as {next(iter(others))}"
    return [f"names of task {names}: {what}; the model was trained for {task.name}, and its labels are written"]
