"""One fold of one run, with everything that a process needs to train or evaluate it."""

from dataclasses import dataclass

from uncseg.config.experiment import Experiment
from uncseg.evaluation.figures import shown_in
from uncseg.layout import PreparedFolder, RunFolder

DONE = "done.json"


@dataclass(frozen=True)
class FoldTask:
    """One fold of one run, to be trained, evaluated or measured."""

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


def is_done(run: RunFolder, fold: int) -> bool:
    """Return whether a fold's training has ended and its final checkpoint is written."""
    return (run.fold(fold) / DONE).is_file() and run.final_checkpoint(fold).is_file()
