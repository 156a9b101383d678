"""Which built-in tasks the names of cases tell."""

import re
from collections.abc import Collection

from uncseg.tasks.built_in_tasks import built_in, built_in_names
from uncseg.tasks.task import Task


def tasks_by_names(case_ids: Collection[str]) -> dict[str, tuple[Task, ...]]:
    """Return the built-in tasks that each case's name may belong to; names that tell none are left out."""
    patterns = [(task, re.compile(task.cases, re.IGNORECASE)) for task in map(built_in, built_in_names()) if task.cases]
    told = {case: tuple(task for task, pattern in patterns if pattern.fullmatch(case)) for case in case_ids}
    return {case: tasks for case, tasks in told.items() if tasks}
