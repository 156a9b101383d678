"""A deep ensemble: networks of the same folds that differ in their seeds, each in a run folder of its own."""

from dataclasses import replace

from uncseg.config.experiment import Experiment
from uncseg.config.sections import Estimators, Storage
from uncseg.layout import RunFolder
from uncseg.runs.fold_task import FoldTask, is_done


def member_experiment(experiment: Experiment, number: int) -> Experiment:
    """A member's experiment, which lies in the run's folder; the first member is the run itself."""
    if number == 0:
        return experiment
    seed = experiment.training.member_seeds[number]
    return experiment.model_copy(
        update={
            "name": str(number),
            "training": experiment.training.model_copy(update={"seed": seed, "members": 1}),
            "storage": Storage(path=experiment.run_folder / "members"),
            "evaluation": experiment.evaluation.model_copy(update={"estimators": Estimators()}),
        }
    )


def member_tasks(task: FoldTask) -> list[FoldTask]:
    """A fold's training for every member of the ensemble."""
    return [
        replace(task, experiment=member_experiment(task.experiment, number), run=task.run.member(number))
        for number in range(task.experiment.training.members)
    ]


def all_members_done(experiment: Experiment, run: RunFolder, fold: int) -> bool:
    """Whether a fold's training has ended in every member."""
    return all(is_done(run.member(number), fold) for number in range(experiment.training.members))
