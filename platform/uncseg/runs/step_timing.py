"""A short measurement before a long training: seconds per step, bytes per checkpoint."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from uncseg.config.experiment import Experiment
from uncseg.layout import RunFolder
from uncseg.runs.fold_request import FoldRequest, RunRequest
from uncseg.runs.fold_worker import load_error_source, start_trainer

WARM_UP_STEPS, TIMED_STEPS = 3, 8  # the first steps compile, choose algorithms and start loaders
LIMIT_S = 120.0


@dataclass(frozen=True)
class StepTiming:
    """What training a fold costs on the connected cluster."""

    training_step_s: float
    validation_step_s: float
    checkpoint_bytes: int
    """Including the optimiser."""

    def hours(self, experiment: Experiment) -> float:
        """Return the hours of one fold's training."""
        training = experiment.training
        epoch = training.iterations_per_epoch * self.training_step_s
        epoch += training.val_iterations_per_epoch * self.validation_step_s
        return training.epochs * epoch / 3600


def time_steps(request: RunRequest, fold: int, progress: Callable[[str, int, int], None]) -> StepTiming | str:
    """Train and validate a few steps of a fold, and discard them; return the measurement, or why there is none.

    On a busy cluster this waits for its turn as a fold does; ``progress`` is called with (what, done, total).
    """
    if request.slots.fold.processes > 1:
        return "a fold takes several GPUs; the first epochs will show it"
    worker = request.slots.fold.worker
    remote = ray.remote(num_cpus=worker.cpus, num_gpus=worker.gpus, max_retries=1)(measure_steps)
    measured = remote.remote(request.fold(fold))
    progress("measuring a few steps", 0, 1)
    try:
        result = ray.get(measured)
    except ray.exceptions.RayError as error:  # the folds will meet it too, and report more
        return str(error).strip().splitlines()[-1]
    progress("measuring a few steps", 1, 1)
    assert isinstance(result, StepTiming)
    return result


def measure_steps(request: FoldRequest) -> StepTiming:
    """Train and validate a few steps of a fold in this process, in a temporary folder."""
    with temporary_trainer(request) as (trainer, folder):
        trainer.network.train()
        training = _seconds(lambda: trainer.train_step(next(trainer.dataloader_train)))
        trainer.network.eval()
        validation = _seconds(lambda: trainer.validation_step(next(trainer.dataloader_val)))
        file = folder / "checkpoint.pth"
        trainer.save_checkpoint(str(file))
        return StepTiming(training, validation, file.stat().st_size)


@contextmanager
def temporary_trainer(request: FoldRequest) -> Iterator[tuple[Any, Path]]:
    """Yield the trainer of a fold with its streams of batches open, and its folder, which goes with the block."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = start_trainer(replace(request, run=RunFolder(Path(folder))))
        load_error_source(request, trainer)
        streams = trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
        try:
            yield trainer, Path(folder)
        finally:
            for stream in streams:
                stream.close()


def _seconds(step: Callable[[], object]) -> float:
    """Return the seconds of one step; a trainer's step ends when its result has reached the host."""
    began = time.perf_counter()
    for _ in range(WARM_UP_STEPS):
        step()
    started, done = time.perf_counter(), 0
    while done < TIMED_STEPS and (done == 0 or time.perf_counter() - began < LIMIT_S):
        step()
        done += 1
    return (time.perf_counter() - started) / done
