"""One trial of a sweep: its folds in one group, in step, so that an epoch has a mean over folds to judge it by."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

from uncseg.cluster.cross_validation import open_run, short_message
from uncseg.cluster.fold_group import MAX_WORKER_DEATHS, run_fold_group
from uncseg.cluster.fold_worker import REPORTED, FoldTask, is_done
from uncseg.cluster.resources import Slots
from uncseg.config import Experiment
from uncseg.files import write_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.sweep_file import Objective, trial_experiment
from uncseg.tracking.spool import read_history

VALUES = "values.json"
"""In a trial's folder: the values of the sweep's fields."""


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a sweep share."""

    base: Experiment
    prepared: PreparedFolder
    folder: Path
    """A run folder for each trial lies in it."""
    folds: tuple[int, ...]
    objective: Objective
    slots: Slots
    trust: bool = False
    """Let checkpoints run code of their own."""

    def run(self, trial_id: str) -> RunFolder:
        """The folder of a trial."""
        return RunFolder(self.folder / trial_id)

    def row(self, trial_id: str) -> dict[str, Any]:
        """What became of a trial, from its spool.

        Returns:
            state (finished, stopped or failed), epochs that all folds have trained, the objective's mean over folds
            at the last of them and its spread (population standard deviation), NaN where a fold has no value there.
        """
        histories = [read_history(self.run(trial_id).spool, fold) for fold in self.folds]
        last = min(history.last_epoch for history in histories)
        metric = self.objective.metric
        values = [
            history.epochs[last].metrics.get(metric, math.nan) if last >= 0 else math.nan for history in histories
        ]
        whole = all(map(math.isfinite, values))
        state = "finished" if all(history.state == "finished" for history in histories) else "stopped"
        if any(history.state == "failed" for history in histories):
            state = "failed"
        return {
            "state": state,
            "epochs": last + 1,
            "objective": fmean(values) if whole else math.nan,
            "objective_std": pstdev(values) if whole else math.nan,
        }


class FoldMeanToTune(TuneReportCallback):
    """Ray's callback hands fold 0's report on to Tune; here it is the mean over folds."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """One report a fold, all of one epoch."""
        self._training_actor_item_queue.put(mean_over_folds(metrics, self.objective))


def mean_over_folds(reports: list[dict[str, Any]], objective: Objective) -> dict[str, float]:
    """What Tune hears of an epoch.

    Args:
        reports: one a fold: its epoch, counted from 0, and metrics.
        objective: always in the result: the worst there is, where a fold has no finite value.

    Returns:
        ``epoch``: epochs trained, from 1; each metric that all folds have: its mean, and ``NAME_std``, the spread
        over folds (population standard deviation).
    """
    assert len({report["epoch"] for report in reports}) == 1, "folds that are not in step"
    worst = -math.inf if objective.mode == "max" else math.inf
    result = {"epoch": reports[0]["epoch"] + 1, objective.metric: worst}
    for name in reports[0]:
        values = [report.get(name, math.nan) for report in reports]
        if name != "epoch" and all(map(math.isfinite, values)):
            result |= {name: fmean(values), f"{name}_std": pstdev(values)}
    return result


def train_trial(values: Mapping[str, Any], setup: TrialSetup) -> None:
    """Train a trial's folds from wherever they stand; runs in an actor of Tune's.

    Raises:
        RuntimeError: a fold failed, which trying again would not mend.
        Exception: Ray's, where workers died too often.
    """
    trial_id = ray.tune.get_context().get_trial_id()
    run = setup.run(trial_id)
    experiment = trial_experiment(setup.base, trial_id, setup.folder, values)
    open_run(experiment)
    write_json(run.root / VALUES, dict(values))
    slots, reported = setup.slots, tuple(dict.fromkeys([*REPORTED, setup.objective.metric]))
    tasks = [
        FoldTask(experiment, setup.prepared, run, fold, slots.cpus, trust=setup.trust, reported=reported)
        for fold in setup.folds
    ]
    for deaths in range(MAX_WORKER_DEATHS + 1):
        # checkpoints are the folds' own, as in a cross-validation
        shutil.rmtree(run.root / "ray", ignore_errors=True)
        before = [read_history(run.spool, fold).offset for fold in setup.folds]
        try:
            run_fold_group(tasks, slots.each, [FoldMeanToTune(setup.objective)], max_deaths=0)
        except Exception as error:
            failed = _failures(run, setup.folds, before)
            if failed:
                raise RuntimeError("; ".join(failed)) from None
            if deaths == MAX_WORKER_DEATHS:
                raise RuntimeError(short_message(error)) from error
        if all(is_done(run, fold) for fold in setup.folds):
            return


def _failures(run: RunFolder, folds: tuple[int, ...], before: list[int]) -> list[str]:
    """What folds said of themselves since; a worker that was killed says nothing."""
    histories = [read_history(run.spool, fold) for fold in folds]
    return [
        f"fold {history.fold}: {history.message}"
        for history, offset in zip(histories, before, strict=True)
        if history.state == "failed" and history.offset > offset
    ]
