"""A task: which images a case has, what its labels and regions mean, and how lesions are counted.

A task is a value. The built-in ones are the files of ``built_in/``; others have the same fields in an experiment
(``dataset.task``) or in a file, or come from nnU-Net's dataset.json. ``rules.py`` says which tasks are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from uncseg.tasks.fields import TaskFields
from uncseg.tasks.rules import problems_of_task


class Task(TaskFields):
    """What the files of a dataset mean. Labels are numbered 1 to n, as in nnU-Net; 0 is the background."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, content: Any) -> Any:
        return with_defaults(content) if isinstance(content, Mapping) else content

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "Task":
        if wrong := problems_of_task(self):
            raise ValueError("\n".join(wrong))
        return self


def with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's content with regions, main region and conventions where they are absent."""
    filled = dict(content)
    labels, modalities = filled.get("labels"), filled.get("modalities")
    if filled.get("regions") is None and isinstance(labels, Mapping):
        each: dict[str, Sequence[str]] = {str(label): [str(label)] for label in labels}
        filled["regions"] = each if len(each) == 1 else {"foreground": [*map(str, labels)], **each}
    if filled.get("main_region") is None and isinstance(filled.get("regions"), Mapping):
        filled["main_region"] = str(next(iter(filled["regions"]), ""))
    if filled.get("conventions") is None and isinstance(modalities, list | tuple):
        filled["conventions"] = {"files": {"images": {str(name): f"-{name}" for name in modalities}}}
    elif isinstance(filled.get("conventions"), Mapping):  # YAML reads 2018 as a number
        named = {str(name): convention for name, convention in filled["conventions"].items()}
        if len(named) == len(filled["conventions"]):  # and 2018 is not there beside "2018"
            filled["conventions"] = named
    return filled
