"""A run's settings as its own folder has them: MLflow is filled from it alone."""

from typing import Any

import yaml

from uncseg.config.task_files import task_of
from uncseg.layout import RunFolder
from uncseg.tasks.task import Task


def read_settings(run: RunFolder) -> dict[str, Any]:
    """Return the content of the run's experiment file; nothing where there is none."""
    file = run.experiment
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content


def read_task(run: RunFolder) -> Task:
    """Return the task of a run; that of the paper where its settings name none."""
    return task_of(read_settings(run))
