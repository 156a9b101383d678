"""By which task two folders of masks are scored: as set, by names of cases, or by what lies beside the masks.

nnU-Net's datasets and predictions say in dataset.json what their masks mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from uncseg.config.task_files import (
    DATASET_JSON,
    OPTION,
    TASK_FILE,
    nnunet_dataset_json,
    read_dataset_json,
    required_task,
)
from uncseg.dataset.labels import AS_SET, BY_DATASET_JSON
from uncseg.dataset.told_task import BY_CASES, names_in, told_task
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.method.inference.label_meaning import known_task, label_numbers
from uncseg.tasks.built_in_tasks import paper_task, require_names_fit, task_of_names
from uncseg.tasks.fields import Convention, ConventionName
from uncseg.tasks.task import Task

OWN = "uncseg"
"""Name of the convention by which a task numbers its labels, where no convention of the task does so."""
_ABOVE = {"labels*": 1, "gt_segmentations": 1, "validation*": 2}
"""How far above nnU-Net's folders of masks dataset.json lies."""


@dataclass(frozen=True)
class ChosenTask:
    """The task that masks are scored by, and how it is known."""

    task: Task
    reason: str

    @property
    def note(self) -> str:
        """A sentence that says which task and which lesion rule are applied."""
        return f"task {self.task.name}: {self.task.lesions} ({self.reason})"


def folder_of_masks(folder: Path) -> Path:
    """Return the folder with the masks: labelsTr of nnU-Net's raw dataset, else the folder itself."""
    return folder / "labelsTr" if nnunet_dataset_json(folder) is not None else folder


def choose_task(predictions: Path, references: Path, wanted: Task | None) -> ChosenTask:
    """Return the task of two folders, with a convention that numbers labels as the task does.

    Args:
        predictions, references: folders of masks.
        wanted: the task that was set; None: as names tell, else as task.yaml beside predictions, else as dataset.json,
            else the paper's.

    Raises:
        ProblemsFound: names of cases tell another task than the one that was set, or several (exit code 2); or
            dataset.json describes none.
    """
    names = sorted(names_in(predictions) | names_in(references))
    where, dataset = f"{predictions}, {references}", references.resolve().parent
    if wanted is not None:
        require_names_fit(names, wanted, where, OPTION)
        task, reason = wanted, AS_SET
    elif nnunet_dataset_json(dataset) is not None:
        task, reason = told_task(dataset)
    elif (told := task_of_names(names, where, OPTION)) is not None:
        task, reason = told, BY_CASES
    elif (file := predictions / TASK_FILE).is_file():
        task, reason = required_task(str(file), str(file)), f"by {TASK_FILE}"
    elif (described := _described(predictions, references)) is not None:
        task, reason = described, BY_DATASET_JSON
    else:
        task, reason = paper_task(), "by default"
    return ChosenTask(with_own_numbers(task), reason)


def _described(predictions: Path, references: Path) -> Task | None:
    """Return the task of nnU-Net's dataset.json beside or above masks.

    A built-in task that has its labels is preferred, so that regions have their usual names. Where these are numbered
    in another way, the numbers of dataset.json hold only if both folders have them.
    """
    both = [MasksDescription.of(folder) for folder in (references, predictions)]
    known = [description for description in both if description is not None]
    if not known:
        return None
    task = known[0].built_in_task()
    alike = len(known) == len(both) and known[0].labels == known[1].labels
    if task is None or (alike and not known[0].is_numbered_as(task)):
        return known[0].own_task()
    return task


def with_own_numbers(task: Task) -> Task:
    """Return a task with a convention that numbers labels as the task does; masks that uncseg writes have these."""
    if any(task.values(name) == task.labels for name in task.conventions):
        return task
    usual = task.conventions[task.convention]
    own = Convention(title=f"{OWN}, which numbers labels from 1", images=usual.images, mask=usual.mask)
    return task.model_copy(update={"conventions": {**task.conventions, OWN: own}})


def own_convention(task: Task) -> ConventionName:
    """Return the convention of :func:`with_own_numbers`."""
    return next(name for name in task.conventions if task.values(name) == task.labels)


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
            found = "labels " + ", ".join(f"{value} {name}" for name, value in self.labels.items())
            problem = Problem(str(self.file), found, expected, advice)
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
