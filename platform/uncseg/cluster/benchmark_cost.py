"""What an estimator costs: the prediction of one case, each in turn, several times, in one process."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import ray
import torch

from uncseg.cluster.benchmark import Scored
from uncseg.cluster.out_of_fold import loaded_members, preprocessed_case
from uncseg.cluster.resources import Slots
from uncseg.cluster.workers import Workers
from uncseg.method.native_space import predict_grid
from uncseg.method.predictor import UncertaintyPredictor
from uncseg.method.sampling import estimate_grid


def measure_costs(scored: Sequence[Scored], case_id: str, repeats: int, slots: Slots) -> dict[str, Any]:
    """Seconds of predicting a preprocessed case, as medians, and their ratio to the shared training's single pass.

    Args:
        scored: one fold of each training, the shared one among them.
        case_id: of that fold.
        repeats: rounds; in each every estimator runs once, the shared one's pass too, so that a machine that slows
            down slows all of them.
        slots: what a fold takes.

    Returns:
        ``seconds`` and ``ratio`` by TRAINING/ESTIMATOR (TRAINING/ for one pass), and ``device``.
    """
    with Workers(slots, 1) as workers:
        measured: dict[str, Any] = ray.get(workers.start(_measure, (list(scored), case_id, repeats)))
    return measured


def _measure(scored: list[Scored], case_id: str, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(scored[0].task.cpus)
    times: dict[str, list[float]] = {}
    unit = next(f"{one.training.name}/" for one in scored if one.task.run == one.shared.run)
    for number in range(repeats + 1):
        for one in scored:
            data, _ = preprocessed_case(one.task, case_id)
            members = loaded_members(one.task)
            for estimator in dict.fromkeys(method.estimator for method in one.methods):
                seconds = _seconds(one, estimator, members, data)
                if number:  # the first round warms up
                    times.setdefault(f"{one.training.name}/{estimator or ''}", []).append(seconds)
    ratios = {name: median(a / b for a, b in zip(own, times[unit], strict=True)) for name, own in times.items()}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"seconds": {name: median(own) for name, own in times.items()}, "ratio": ratios, "device": device}


def _seconds(one: Scored, estimator: str | None, members: list[UncertaintyPredictor], data: np.ndarray) -> float:
    _wait()
    started = time.perf_counter()
    if estimator is None:
        predict_grid(members[0], data)
    else:
        estimate_grid(estimator, members, data, one.task.experiment.evaluation.estimators)
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
