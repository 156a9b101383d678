"""A run, and one of its folds, with everything that is needed to train or evaluate it."""

from dataclasses import dataclass

from uncseg.cluster.resources import Slots
from uncseg.config.experiment import Experiment
from uncseg.evaluation.figures import shown_in
from uncseg.layout import PreparedFolder, RunFolder

DONE = "done.json"


@dataclass(frozen=True)
class FoldTask:
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
class RunTask:
    """A run to be trained or evaluated on the connected cluster."""

    experiment: Experiment
    prepared: PreparedFolder
    run: RunFolder
    slots: Slots
    trust: bool = False

    def fold(self, fold: int) -> FoldTask:
        """Return the task of one fold."""
        cpus, processes = self.slots.cpus_per_process, self.slots.fold.processes
        return FoldTask(self.experiment, self.prepared, self.run, fold, cpus, processes, self.trust)


def is_done(run: RunFolder, fold: int) -> bool:
    """Return whether a fold's training has ended and its final checkpoint is written."""
    return (run.fold(fold) / DONE).is_file() and run.final_checkpoint(fold).is_file()
