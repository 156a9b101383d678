"""By which task two folders of masks are scored: as set, by names of cases, or by what lies beside the masks."""

from dataclasses import dataclass
from pathlib import Path

from uncseg.config.task_files import OPTION, TASK_FILE, nnunet_dataset_json, required_task
from uncseg.dataset.labels import AS_SET, BY_DATASET_JSON
from uncseg.dataset.told_task import BY_CASES, names_in, told_task
from uncseg.evaluation.nnunet_labels import MasksDescription
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.by_names import require_names_fit, task_of_names
from uncseg.tasks.fields import Convention, ConventionName
from uncseg.tasks.task import Task

OWN = "uncseg"
"""Name of the convention by which a task numbers its labels, where no convention of the task does so."""


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
