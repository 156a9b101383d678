"""What a method costs: training steps and the prediction of one case, each in turn, several rounds, in one process."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch

from uncseg.cluster.resources import Slots
from uncseg.cluster.workers import Workers
from uncseg.layout import RunFolder
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.inference.several_predictions import estimate_grid
from uncseg.runs.fold_prediction import loaded_members, preprocessed_case
from uncseg.runs.fold_worker import start_trainer
from uncseg.studies.benchmark.score_maps import ScoredFold

STEPS = 4
"""Of a round."""
NNUNET = "nnU-Net"
"""The shared training's steps as nnU-Net itself takes them: the unit of training."""


def measure_costs(scored: Sequence[ScoredFold], case_id: str, repeats: int, slots: Slots) -> dict[str, Any]:
    """Seconds of training steps and of predicting a preprocessed case, and their ratio to plain nnU-Net's.

    Args:
        scored: one fold of each training, the shared one among them.
        case_id: of that fold.
        repeats: rounds; in each every estimator runs once, the unit too, so that a machine that slows down slows all
            of them.
        slots: what a fold takes.

    Returns:
        ``training`` by TRAINING and NNUNET, ``inference`` by TRAINING/ESTIMATOR (TRAINING/ for one pass), each with
        medians over the rounds: ``seconds``, and ``ratio`` to the unit in the same round, which is nnU-Net's own step
        and the shared training's one pass; ``device``.
    """
    with Workers(slots, 1) as workers:
        measured: dict[str, Any] = ray.get(workers.start(_measure, (list(scored), case_id, repeats)))
    return measured


def _measure(scored: list[ScoredFold], case_id: str, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(scored[0].task.cpus)
    shared = next(one.training.name for one in scored if one.is_shared)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    training = _in_turn(_steps(scored, shared), repeats, NNUNET)
    return {"training": training, "inference": _in_turn(_predictions(scored, case_id), repeats, f"{shared}/")} | {
        "device": device
    }


def _in_turn(work: Mapping[str, Callable[[], object]], repeats: int, unit: str) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(repeats + 1):
        for name, function in work.items():
            seconds = _seconds(function)
            if number:  # the first round warms up
                times[name].append(seconds)
    return {
        "seconds": {name: median(own) for name, own in times.items()},
        "ratio": {name: median(a / b for a, b in zip(own, times[unit], strict=True)) for name, own in times.items()},
    }


def _predictions(scored: list[ScoredFold], case_id: str) -> dict[str, Callable[[], object]]:
    """How each estimator predicts the case."""
    work: dict[str, Callable[[], object]] = {}
    for one in scored:
        data, _ = preprocessed_case(one.task, case_id)
        members = loaded_members(one.task)
        settings = one.task.experiment.evaluation.estimators
        for estimator in dict.fromkeys(method.estimator for method in one.methods):
            name = f"{one.training.name}/{estimator or ''}"
            if estimator is None:
                work[name] = partial(predict_grid, members[0], data)
            else:
                work[name] = partial(estimate_grid, estimator, members, data, settings)
    return work


def _steps(scored: list[ScoredFold], shared: str) -> dict[str, Callable[[], object]]:
    """A few training steps of each training, from fresh weights, on batches that are there already."""
    # here its environment is set
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    work: dict[str, Callable[[], object]] = {}
    for one in scored:
        # of a trainer's log: without it nnU-Net tries for seconds to write each line
        with tempfile.TemporaryDirectory() as folder:
            trainer = start_trainer(replace(one.task, run=RunFolder(Path(folder))))
            streams = trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
            batches = [next(streams[0]) for _ in range(STEPS)]
            for stream in streams:
                stream.close()
        trainer.network.train()
        work[one.training.name] = partial(_train_steps, trainer.train_step, batches)
        if one.training.name == shared:
            # without the error memory that every training of ours keeps
            work[NNUNET] = partial(_train_steps, partial(nnUNetTrainer.train_step, trainer), batches)
    return work


def _train_steps(train_step: Callable[[dict], object], batches: list[dict]) -> None:
    for batch in batches:
        train_step(batch)


def _seconds(function: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
