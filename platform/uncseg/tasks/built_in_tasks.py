"""The built-in tasks: those of the BraTS challenges, one YAML file each."""

from functools import cache
from pathlib import Path

import yaml

from uncseg.errors import Problem, ProblemsFound
from uncseg.tasks.task import Task

FOLDER = Path(__file__).parent / "built_in"
PAPER = "gli-2023"
"""The task of the paper, which holds where nothing else is said."""


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
