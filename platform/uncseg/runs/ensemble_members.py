"""Members of a deep ensemble: networks of the same folds with different seeds, each in its own run folder."""

from dataclasses import replace

from uncseg.config.experiment import Experiment
from uncseg.config.sections import Estimators, Storage
from uncseg.layout import RunFolder
from uncseg.runs.fold_task import FoldTask, is_done


def member_experiment(experiment: Experiment, number: int) -> Experiment:
    """Return a member's experiment; members lie in the run's folder, and the first one is the run itself."""
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
    """Return one task per member of the ensemble for a fold."""
    return [
        replace(task, experiment=member_experiment(task.experiment, number), run=task.run.member(number))
        for number in range(task.experiment.training.members)
    ]


def all_members_done(experiment: Experiment, run: RunFolder, fold: int) -> bool:
    """Return whether a fold's training has ended in every member."""
    return all(is_done(run.member(number), fold) for number in range(experiment.training.members))
