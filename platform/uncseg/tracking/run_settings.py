"""A run's settings as its own folder has them: MLflow is filled from it alone."""

from typing import Any

from pydantic import ValidationError

from uncseg.config.reading import read_saved
from uncseg.config.task_files import task_of
from uncseg.errors import DamagedFile
from uncseg.layout import RunFolder
from uncseg.tasks.task import Task

ADVICE = "restore it from a copy, or from the run's page in MLflow"


def read_settings(run: RunFolder) -> dict[str, Any]:
    """Return the content of the run's experiment file; nothing where there is none.

    Raises:
        DamagedFile: it cannot be read, or holds anything but settings.
    """
    return read_saved(run.experiment, ADVICE) if run.experiment.exists() else {}


def read_task(run: RunFolder) -> Task:
    """Return the task of a run; that of the paper where its settings name none. Raises as :func:`read_settings`."""
    try:
        return task_of(read_settings(run))
    except ValidationError as error:
        found = f"a task with {error.error_count()} wrong fields, such as {error.errors()[0]['loc']}"
        raise DamagedFile.of(run.experiment, found, "the task that was written", ADVICE) from error
