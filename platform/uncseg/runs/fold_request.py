"""A run, and one of its folds, with everything that is needed to train or evaluate it.

The members of a deep ensemble are networks of the same folds with different seeds, each in its own run folder.
"""

from dataclasses import dataclass, replace

from uncseg.cluster.resources import Slots
from uncseg.config.experiment import Experiment
from uncseg.config.sections import Estimators, Storage
from uncseg.evaluation.figures import shown_in
from uncseg.layout import DONE, PreparedFolder, RunFolder


@dataclass(frozen=True)
class FoldRequest:
    """One fold of a run, as a worker process trains, evaluates or measures it."""

    experiment: Experiment
    prepared: PreparedFolder
    run: RunFolder
    fold: int
    cpus: int
    """CPU cores per process, shared by the training and its loaders."""
    processes: int = 1
    """Processes that train the fold together, one per GPU."""
    trust: bool = False
    """Let checkpoints run code of their own."""
    reported: tuple[str, ...] = tuple(shown_in("progress"))
    """Metrics that are reported to Ray; the spool holds all of them."""


@dataclass(frozen=True)
class RunRequest:
    """A run to be trained or evaluated on the connected cluster."""

    experiment: Experiment
    prepared: PreparedFolder
    run: RunFolder
    slots: Slots
    trust: bool = False

    def fold(self, fold: int) -> FoldRequest:
        """Return the request for one fold."""
        cpus, processes = self.slots.cpus_per_process, self.slots.fold.processes
        return FoldRequest(self.experiment, self.prepared, self.run, fold, cpus, processes, self.trust)


def is_done(run: RunFolder, fold: int) -> bool:
    """Return whether a fold's training has ended and its final checkpoint is written."""
    return (run.fold(fold) / DONE).is_file() and run.final_checkpoint(fold).is_file()


def member_experiment(experiment: Experiment, number: int) -> Experiment:
    """Return a member's experiment; members lie in the run's folder, and the first one is the run itself."""
    if number == 0:
        return experiment
    seed = experiment.training.member_seeds[number]
    update = {
        "name": str(number),
        "training": experiment.training.model_copy(update={"seed": seed, "members": 1}),
        "storage": Storage(path=experiment.run_folder / "members"),
        "evaluation": experiment.evaluation.model_copy(update={"estimators": Estimators()}),
    }
    return experiment.model_copy(update=update)


def member_requests(request: FoldRequest) -> list[FoldRequest]:
    """Return one request per member of the ensemble for a fold."""
    return [
        replace(request, experiment=member_experiment(request.experiment, number), run=request.run.member(number))
        for number in range(request.experiment.training.members)
    ]


def all_members_done(experiment: Experiment, run: RunFolder, fold: int) -> bool:
    """Return whether a fold's training has ended in every member."""
    return all(is_done(run.member(number), fold) for number in range(experiment.training.members))
