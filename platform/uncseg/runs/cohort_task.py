"""By which task another cohort is evaluated, known from names of files alone: no torch is imported."""

from pathlib import Path

from uncseg.config.task_files import OPTION
from uncseg.dataset.labels import AS_SET
from uncseg.dataset.told_task import BY_CASES, names_in
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.masks_task import ChosenTask
from uncseg.tasks.built_in_tasks import is_built_in, require_names_fit, task_of_names
from uncseg.tasks.nnunet_dataset import modalities_of
from uncseg.tasks.task import Task


def cohort_task(dataset: Path, model: Task, wanted: Task | None) -> ChosenTask:
    """Return the task of a cohort: its regions are the model's, and lesions are counted by its own rule.

    Args:
        dataset: the cohort's folder.
        model: the task that the model was trained for.
        wanted: the task that was set; None: as names of cases tell, else the model's.

    Raises:
        ProblemsFound: the regions are others than the model's, or names of cases tell another task (exit code 2).
    """
    names, where = sorted(names_in(dataset)), str(dataset)
    if wanted is not None:
        require_names_fit(names, wanted, where, OPTION)
        chosen = ChosenTask(wanted, AS_SET)
    elif is_built_in(model) and (told := task_of_names(names, where, OPTION)) is not None:
        chosen = ChosenTask(told, BY_CASES)
    else:
        chosen = ChosenTask(model, "the model's")
    if set(modalities_of(model.modalities, chosen.task)) != set(range(len(chosen.task.modalities))):
        found = f"task {chosen.task.name} ({chosen.reason}): {', '.join(chosen.task.modalities)}"
        expected = f"the model's modalities: {', '.join(model.modalities)}"
        advice = "give a cohort with these images, or say in the task's other_names which of them each one is"
        raise ProblemsFound("The cohort does not fit the model.", [Problem(where, found, expected, advice)])
    if not chosen.task.same_meaning(model):
        found = f"task {chosen.task.name} ({chosen.reason}): {_regions(chosen.task)}"
        expected = f"the model's regions and labels: {_regions(model)}"
        advice = "give a cohort of the model's task, or a model of the cohort's"
        raise ProblemsFound("The cohort does not fit the model.", [Problem(where, found, expected, advice)])
    return chosen


def _regions(task: Task) -> str:
    return "; ".join(f"{region}: {', '.join(labels)}" for region, labels in task.regions.items())
