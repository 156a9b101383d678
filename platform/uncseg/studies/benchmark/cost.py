"""What methods cost: training steps and the prediction of one case, timed in turn in several rounds of one process."""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
import torch

from uncseg.cluster.resources import Slots
from uncseg.cluster.tasks import Workers
from uncseg.config.failures import Failures
from uncseg.dataset.splits import read_splits
from uncseg.estimators.registry import CROSS_FITTED
from uncseg.method.failures.failure_cases import FailureCase
from uncseg.method.failures.failure_model import FailureModel, fitting_device
from uncseg.method.failures.failure_network import FailureNetwork
from uncseg.method.failures.failure_training import FailureTraining
from uncseg.method.inference.learnt_failures import LearntFailures
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.inference.predictor import UncertaintyPredictor
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.runs.cross_fitting import learn_from_voxels
from uncseg.runs.failure_data import open_case
from uncseg.runs.fold_prediction import loaded_members, preprocessed_case
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.step_timing import temporary_trainer
from uncseg.studies.benchmark.score_maps import ScoredFold

COSTS_VERSION = 3
"""To be raised when something else is measured."""
STEPS = 4
"""Training steps per round."""
NNUNET = "nnU-Net"
"""The shared training's steps as nnU-Net itself takes them: the unit of training."""
Work = dict[str, Callable[[], object]]


def measure_costs(scored: Sequence[ScoredFold], case_id: str, repeats: int, slots: Slots) -> dict[str, Any]:
    """Time training steps and the prediction of a preprocessed case, and relate them to plain nnU-Net's.

    Args:
        scored: the same fold of each training, the shared one among them.
        case_id: case of that fold.
        repeats: number of rounds. In each, everything that is timed runs once, so that a machine that slows down slows
            all of it.
        slots: what a fold takes.

    Returns:
        ``training`` by TRAINING, TRAINING/cross_fitted (the stage that follows it) and NNUNET, ``inference`` by
        TRAINING/ESTIMATOR (TRAINING/ for one pass), each with medians over the rounds: ``seconds``, and ``ratio`` to
        the unit in the same round, which is nnU-Net's own step or one pass of the shared training; ``device``. A
        stage's ratio is that of its steps to as many of nnU-Net's as its training has.
    """
    with Workers(slots, 1) as workers:
        measured: dict[str, Any] = ray.get(workers.start(_measure, (list(scored), case_id, repeats)))
    return measured


def _measure(scored: list[ScoredFold], case_id: str, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(scored[0].request.cpus)
    shared = next(part.training.name for part in scored if part.is_shared)
    learnt = [part for part in scored if any(method.map == CROSS_FITTED for method in part.methods)]
    training = _time_in_turn(_training_steps(scored) | _failure_steps(learnt, case_id), repeats, NNUNET)
    for part in learnt:
        experiment = part.request.experiment
        steps = experiment.training.epochs * experiment.training.iterations_per_epoch
        # trees and perceptrons are fitted as a whole, against a few of nnU-Net's steps
        training["ratio"][stage_of(part.training.name)] *= (experiment.failures.steps or STEPS) / steps
    return {
        "training": training,
        "inference": _time_in_turn(_predictions(scored, case_id), repeats, f"{shared}/"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }


def stage_of(training: str) -> str:
    """Return the name of the stage in which a training's folds learn from failures."""
    return f"{training}/{CROSS_FITTED}"


def _time_in_turn(work: Work, repeats: int, unit: str) -> dict[str, dict[str, float]]:
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


def _predictions(scored: list[ScoredFold], case_id: str) -> Work:
    """Return the prediction of the case with each estimator."""
    work: Work = {}
    for part in scored:
        data, _ = preprocessed_case(part.request, case_id)
        members = loaded_members(part.request)
        settings = part.request.experiment.evaluation.estimators
        for method in part.methods:
            if method.estimator is not None:
                work[method.prediction] = partial(estimate_grid, method.estimator, members, data, settings)
            elif method.map == CROSS_FITTED:
                work[method.prediction] = partial(_predict_failures, part.request, members[0], data)
            else:
                work[method.prediction] = partial(predict_grid, members[0], data)
    return work


def _predict_failures(request: FoldRequest, network: UncertaintyPredictor, data: np.ndarray) -> None:
    """Predict a case, and where that may be wrong."""
    model = ModelFolder(request.run.model, request.experiment.plan.configuration)
    learnt = LearntFailures.of(model, request.fold)
    assert learnt is not None
    learnt.on_grid(data, predict_grid(network, data), request.experiment.evaluation.tile_step)


def _training_steps(scored: list[ScoredFold]) -> Work:
    """Return a few training steps of each training, from fresh weights, on batches that are already loaded."""
    # imported here, where nnU-Net's environment is set
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    work: Work = {}
    for part in scored:
        with temporary_trainer(part.request) as (trainer, _):
            batches = [next(trainer.dataloader_train) for _ in range(STEPS)]
        trainer.network.train()
        work[part.training.name] = partial(_train_on, batches, trainer.train_step)
        if part.is_shared:
            # nnU-Net's own step keeps no error memory, as our trainings do
            work[NNUNET] = partial(_train_on, batches, partial(nnUNetTrainer.train_step, trainer))
    return work


def _failure_steps(scored: Sequence[ScoredFold], case_id: str) -> Work:
    """Return a few training steps of each training's failure network, from fresh weights, on a case; or the fit of all
    its trees or perceptrons."""
    work: Work = {}
    for part in scored:
        request = part.request
        model = FailureModel.load(request.run.learnt_failures(request.fold))
        if not model.settings.steps:
            own = {*part.cases}
            others = [
                case for split in read_splits(request.prepared.splits) for case in split["val"] if case not in own
            ]
            work[stage_of(part.training.name)] = partial(learn_from_voxels, request, request.fold, others, model)
            continue
        few, case = model.settings.model_copy(update={"steps": STEPS}), open_case(part.request, case_id)
        network = model.build(seed=0).to(fitting_device())
        work[stage_of(part.training.name)] = partial(_learn_on, case, network, few)
    return work


def _learn_on(case: FailureCase, network: FailureNetwork, settings: Failures) -> None:
    with tempfile.TemporaryDirectory() as folder:
        FailureTraining(network, settings, 0, "").run([case], Path(folder) / "latest.pth")


def _train_on(batches: list[dict], train_step: Callable[[dict], object]) -> None:
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
