"""The task that an experiment or an option names: a built-in one, a YAML file, or nnU-Net's dataset.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from uncseg.config.list_files import read_text_file
from uncseg.config.reading import read_yaml, validate
from uncseg.errors import Problem, ProblemsFound, did_you_mean
from uncseg.files import digest, json_text, write_text
from uncseg.tasks.built_in_tasks import built_in, built_in_names, paper_task
from uncseg.tasks.nnunet_dataset import as_word, task_of_dataset_json
from uncseg.tasks.task import Task

FIELD, OPTION = "dataset.task", "--task"
DATASET_JSON = "dataset.json"
TASK_FILE = "task.yaml"
"""The task of predictions, beside them."""


def read_task(text: str, where: str) -> tuple[Task | None, list[Problem]]:
    """Return the task that a setting names, and what is wrong with it.

    Args:
        text: the name of a built-in task, or of a file that ends in .yaml, .yml or .json (nnU-Net's dataset.json).
        where: the field or option, for the problems.
    """
    path = Path(text)
    if path.suffix.lower() == ".json":
        return read_dataset_json(path, f"{where}: {path}")
    if path.suffix.lower() in (".yaml", ".yml"):
        title = "The task cannot be used."
        try:
            content = {"name": path.stem, **read_yaml(path, title, "docs/tasks.md")}
            return validate(Task, content, path, title), []
        except ProblemsFound as error:
            return None, error.problems
    if text in built_in_names():
        return built_in(text), []
    expected = f"one of {', '.join(built_in_names())}, or a file that ends in .yaml or .json"
    return None, [Problem(where, text, expected, did_you_mean(text, built_in_names(), "correct it"))]


def require_task(option: str | None) -> Task | None:
    """Return the task that a command's option ``--task`` names; None without the option.

    Raises:
        ProblemsFound: the option names none.
    """
    return None if option is None else required_task(option, OPTION)


def required_task(text: str, where: str) -> Task:
    """Return the task that a setting names; arguments as in :func:`read_task`.

    Raises:
        ProblemsFound: it names none.
    """
    task, problems = read_task(text, where)
    if task is None:
        raise ProblemsFound("The task cannot be used.", problems)
    return task


def read_dataset_json(path: Path, where: str) -> tuple[Task | None, list[Problem]]:
    """Return the task of nnU-Net's dataset.json, which has the name of its folder, and what is wrong with it."""
    text, problems = read_text_file(path, where, "nnU-Net's dataset.json")
    if text is None:
        return None, problems
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, [Problem(where, f"no JSON: {error}", "nnU-Net's dataset.json", "correct the file")]
    return task_of_dataset_json(content, where, as_word(path.absolute().parent.name))


def nnunet_dataset_json(folder: Path) -> Path | None:
    """Return dataset.json of a folder that is nnU-Net's raw dataset, with imagesTr and labelsTr; None for others."""
    file = folder / DATASET_JSON
    return file if file.is_file() and all((folder / name).is_dir() for name in ("imagesTr", "labelsTr")) else None


def resolve_task(content: dict[str, Any]) -> list[Problem]:
    """Replace the name of a task in an experiment's content by its fields, in place; return what is wrong.

    Without a name it is that of an nnU-Net dataset at ``dataset.path``, else the paper's. A task that cannot be read is
    replaced by the paper's, so that the other fields can be checked.
    """
    dataset = content.get("dataset")
    if not isinstance(dataset, dict) or isinstance(dataset.get("task"), Mapping):
        return []
    task, problems = _named_task(dataset)
    dataset["task"] = (task or paper_task()).model_dump(mode="json")
    return problems


def _named_task(dataset: Mapping[str, Any]) -> tuple[Task | None, list[Problem]]:
    named = dataset.get("task")
    if named is None:
        path = dataset.get("path")
        file = nnunet_dataset_json(Path(path)) if isinstance(path, str | Path) else None
        return (paper_task(), []) if file is None else read_dataset_json(file, str(file))
    if not isinstance(named, str):
        expected = "the name of a task, a file, or a task's fields"
        return None, [Problem(FIELD, repr(named), expected, "correct it")]
    return read_task(named, FIELD)


def named_task(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's content with the name of a built-in task in place of its fields."""
    dataset = content.get("dataset")
    if not isinstance(dataset, Mapping) or not isinstance(task := dataset.get("task"), Mapping):
        return dict(content)
    name = str(task.get("name"))
    if name not in built_in_names() or built_in(name).model_dump(mode="json") != dict(task):
        return dict(content)
    return {**content, "dataset": {**dataset, "task": name}}


def short_task(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's content with the task's name in place of its fields, and a digest of one of one's own."""
    short = named_task(content)
    dataset = short.get("dataset")
    if not isinstance(dataset, Mapping) or not isinstance(task := dataset.get("task"), Mapping):
        return short
    return {**short, "dataset": {**dataset, "task": f"{task.get('name')}, digest {digest(json_text(dict(task)))[:10]}"}}


def task_of(content: Mapping[str, Any]) -> Task:
    """Return the task of an experiment's content in which it has been resolved; the paper's if it has none."""
    dataset = content.get("dataset")
    task = dataset.get("task") if isinstance(dataset, Mapping) else None
    return Task.model_validate(task) if isinstance(task, Mapping) else paper_task()


def classes_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes of an experiment's task, the background first; the paper's if it has no task."""
    dataset = content.get("dataset")
    if not isinstance(dataset, Mapping):
        return paper_task().classes
    task = dataset.get("task")
    if isinstance(task, Mapping):
        labels = task.get("labels")
        return ("background", *(str(name).lower() for name in labels)) if isinstance(labels, Mapping) else ()
    return (_named_task(dataset)[0] or paper_task()).classes


def write_task(file: Path, task: Task) -> None:
    """Write a task's fields as YAML, as ``--task`` and ``dataset.task`` read them."""
    write_text(file, yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
