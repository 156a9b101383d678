"""One trial of a sweep: its folds train in one group, in step, so that every epoch has a mean over folds."""

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import ray
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback

from uncseg.cluster.ray_internals import pass_to_train_workers, report_to_tune
from uncseg.cluster.resources import Slots
from uncseg.config.experiment import Experiment
from uncseg.evaluation.figures import shown_in
from uncseg.files import write_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.runs.fold_group import MAX_WORKER_DEATHS, run_fold_group
from uncseg.runs.fold_request import FoldRequest, RunRequest, is_done
from uncseg.runs.run_data import record_data
from uncseg.runs.run_opening import open_run
from uncseg.runs.train_folds import short_message
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.space import trial_experiment
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.trials import VALUES
from uncseg.tracking.spool import read_history


@dataclass(frozen=True)
class TrialSetup:
    """What all trials of a sweep share."""

    sweep: Sweep
    base: Experiment
    prepared: PreparedFolder
    folder: SweepFolder
    slots: Slots
    trust: bool = False
    """Let the trials' checkpoints run code of their own."""

    def run(self, trial_id: str) -> RunFolder:
        """Return the folder of a trial."""
        return RunFolder(self.folder.runs / trial_id)

    def experiment(self, trial_id: str, values: Mapping[str, Any]) -> Experiment:
        """Return the experiment of a trial."""
        return trial_experiment(self.base, trial_id, self.folder.runs, values)

    def requests(self, trial_id: str, values: Mapping[str, Any], folds: tuple[int, ...]) -> list[FoldRequest]:
        """Return the training of each fold of a trial, which goes on from its last checkpoint."""
        reported = tuple(dict.fromkeys([*shown_in("progress"), *self.sweep.metrics]))
        experiment, run = self.experiment(trial_id, values), self.run(trial_id)
        request = RunRequest(experiment, self.prepared, run, self.slots, self.trust)
        return [replace(request.fold(fold), reported=reported) for fold in folds]


class FoldMeanToTune(TuneReportCallback):
    """Reports the mean over folds to Tune; Ray's own callback reports the values of fold 0."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__()
        self.sweep = sweep

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """Receive one report per fold, all of the same epoch."""
        report_to_tune(self, mean_over_folds(metrics, self.sweep))


def mean_over_folds(reports: list[dict[str, Any]], sweep: Sweep) -> dict[str, float]:
    """Return what is reported to Tune about an epoch.

    Args:
        reports: one per fold: its epoch, counted from 0, and metrics.
        sweep: its objectives are always in the result: the worst possible value where a fold has no finite one.

    Returns:
        ``epoch``: epochs trained, from 1; for each metric that all folds have, its mean over folds and ``NAME_std``
        (population standard deviation).
    """
    assert len({report["epoch"] for report in reports}) == 1, "folds that are not in step"
    result: dict[str, float] = {"epoch": int(reports[0]["epoch"]) + 1}
    result |= {objective.metric: objective.worst for objective in sweep.objectives}
    for name in reports[0]:
        values = [report.get(name, math.nan) for report in reports]
        if name != "epoch" and all(map(math.isfinite, values)):
            result |= {name: fmean(values), f"{name}_std": pstdev(values)}
    return result


def train_trial(values: Mapping[str, Any], setup: TrialSetup) -> None:
    """Train a trial's folds from their last checkpoints; runs in an actor of Tune's.

    Raises:
        RuntimeError: a fold failed, which another attempt would not change; or its workers died too often.
        ValidationError: an experiment cannot have these values together.
    """
    # When a trial is ended, an actor frees what its workers held, after asking the Ray on its machine whether the trial
    # is alive. If it finds two Rays it frees nothing, and the next trial waits for ever: this says which one.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    pass_to_train_workers("RAY_ADDRESS")
    trial_id, folds = ray.tune.get_context().get_trial_id(), setup.sweep.folds
    write_json(setup.run(trial_id).root / VALUES, dict(values))
    requests = setup.requests(trial_id, values, folds)
    run = open_run(requests[0].experiment)
    record_data(run, requests[0].experiment, setup.prepared)
    message = "the workers ended before their last epoch"
    for _ in range(MAX_WORKER_DEATHS + 1):
        if all(is_done(run, fold) for fold in folds):
            return
        # checkpoints are the folds' own, as in a cross-validation
        shutil.rmtree(run.root / "ray", ignore_errors=True)
        before = [read_history(run.spool, fold).offset for fold in folds]
        try:
            run_fold_group(requests, setup.slots.fold, [FoldMeanToTune(setup.sweep)], max_deaths=0)
        except Exception as error:
            # Ray reports dead workers, lost nodes and a fold's own failure with many types
            message = short_message(error)
        failed = _failures(run, folds, before)
        if failed:
            raise RuntimeError("; ".join(failed))
    if not all(is_done(run, fold) for fold in folds):
        raise RuntimeError(message)


def _failures(run: RunFolder, folds: tuple[int, ...], before: list[int]) -> list[str]:
    """Return the failures that folds have recorded since; a worker that was killed records none."""
    histories = [read_history(run.spool, fold) for fold in folds]
    new = [history for history, offset in zip(histories, before, strict=True) if history.offset > offset]
    return [f"fold {history.fold}: {history.message}" for history in new if history.state == "failed"]
