"""What the masks in a folder of nnU-Net's mean: its datasets and predictions say so in dataset.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from uncseg.config.task_files import DATASET_JSON, read_dataset_json
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.method.inference.label_meaning import known_task, label_numbers
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.task import Task

_ABOVE = {"labels*": 1, "gt_segmentations": 1, "validation*": 2}
"""How far above nnU-Net's folders of masks dataset.json lies."""


@dataclass(frozen=True)
class MasksDescription:
    """What nnU-Net's dataset.json says of masks.

    Args:
        file: beside predictions, above labelsTr and gt_segmentations, or above a fold that has a folder validation.
        labels: the number of each label, or the numbers of each region.
        images: number of images of a case; None: the file does not say it.
    """

    file: Path
    labels: Mapping[str, Any]
    images: int | None

    @classmethod
    def of(cls, folder: Path) -> "MasksDescription | None":
        """Return the description of a folder of masks; None where there is none."""
        folder = folder.resolve()
        above = next((number for pattern, number in _ABOVE.items() if fnmatch(folder.name, pattern)), 0)
        places = (folder, *folder.parents[:above])
        file = next((file for place in places if (file := place / DATASET_JSON).is_file()), None)
        labels = None if file is None else _labels(file)
        return None if file is None or labels is None else cls(file, labels, _images(file))

    def built_in_task(self) -> Task | None:
        """Return the built-in task whose labels these are, the paper's first, however they are numbered."""
        known = known_task(self.labels, self.images)
        return None if known is None else known[0]

    def is_numbered_as(self, task: Task) -> bool:
        """Return whether labels have the numbers of a convention of a task."""
        return self._convention(label_numbers(self.labels, task), task) is not None

    def own_task(self) -> Task:
        """Return the task that the file describes, with its own names and numbers.

        Raises:
            ProblemsFound: the file describes none that can be scored.
        """
        task, problems = read_dataset_json(self.file, str(self.file))
        if task is None:
            raise ProblemsFound("The masks cannot be scored.", problems, exit_code=1)
        return task

    def convention(self, task: Task, option: str) -> ConventionName:
        """Return the convention of a task that has these numbers.

        nnU-Net's own BraTS datasets and the Medical Segmentation Decathlon call oedema 1, in place of 2, so their masks
        would be scored as others.

        Args:
            task: to score by.
            option: that sets a convention.

        Raises:
            ProblemsFound: the labels are those of another task, or have other numbers.
        """
        advice = f"number them so, or give {option} if the masks have these labels"
        numbers = label_numbers(self.labels, task)
        if numbers is None:
            expected = f"those of task {task.name}: {task.describe_labels()}"
            advice = f"score by the task of this file, --task {self.file}; or {advice}"
            problem = Problem(str(self.file), f"labels {_listed(self.labels)}", expected, advice)
            raise ProblemsFound("The masks cannot be scored.", [problem], exit_code=1)
        if (convention := self._convention(numbers, task)) is not None:
            return convention
        names = {number: label for label, number in task.labels.items()}
        found = "labels " + ", ".join(f"{value} {names[number]}" for value, number in sorted(numbers.items()))
        problem = Problem(str(self.file), found, f"labels {task.describe_labels()}", advice)
        raise ProblemsFound("The masks have other labels.", [problem], exit_code=1)

    @staticmethod
    def _convention(numbers: Mapping[int, int] | None, task: Task) -> ConventionName | None:
        """Return the first convention whose values have these numbers."""
        by_value = {
            name: {value: task.labels[label] for label, value in task.values(name).items()} for name in task.conventions
        }
        return next((name for name, values in by_value.items() if values == numbers), None)


def _listed(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{value} {name}" for name, value in labels.items())


def _labels(file: Path) -> dict[str, Any] | None:
    """Return labels by name; the Medical Segmentation Decathlon lists them the other way round."""
    try:
        labels = read_json(file)["labels"]
        if all(isinstance(name, str) for name in labels.values()):
            labels = {name: int(value) for value, name in labels.items()}
    except (ProblemsFound, ValueError, TypeError, KeyError, AttributeError):
        return None
    return labels if isinstance(labels, dict) else None


def _images(file: Path) -> int | None:
    """Return the number of images of a case, which the Medical Segmentation Decathlon calls modalities."""
    content = read_json(file)
    channels = content.get("channel_names", content.get("modality"))
    return len(channels) if isinstance(channels, dict) else None
