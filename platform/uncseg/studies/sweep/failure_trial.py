"""A trial of a sweep over what folds learn from failures: failure networks of a finished run, with other settings.

A trial takes what one worker of a fold takes; its folds learn one after the other. Of the run itself only RUN/failures
is written, where each fold's decisions on its own cases are kept for all trials.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import ray.tune
import torch

from uncseg.config.experiment import Experiment
from uncseg.console import console, counting, warn
from uncseg.errors import raise_if_any
from uncseg.files import digest, read_json, write_json
from uncseg.kept_records import compute_once, is_whole, kept_record
from uncseg.layout import RunFolder
from uncseg.runs.cross_fitting import LATEST, keep_all_decisions
from uncseg.runs.failure_scores import fold_figures, score_fold
from uncseg.runs.fold_request import RunRequest
from uncseg.runs.run_data import record_data
from uncseg.runs.run_opening import locked, open_run
from uncseg.runs.run_plan import estimate_disk, size_text
from uncseg.runs.train_folds import short_message
from uncseg.studies.sweep.failure_sweep import refuse_other_sources
from uncseg.studies.sweep.train_trial import TrialSetup, mean_over_folds
from uncseg.studies.sweep.trials import VALUES
from uncseg.table_files import table_of
from uncseg.tracking.spool import SpoolWriter, read_history

SOURCES = "decisions.json"
"""In the sweep's folder: the run's cases, each with the digest of what its decisions depend on."""
SCORES = "failure_scores.json"
"""In a fold's folder of a trial: the figures of its cases."""
CASES = "cases"
"""Table of the sweep: the figures of each case in all trials."""


def run_request(setup: TrialSetup, experiment: Experiment | None = None) -> RunRequest:
    """Return the base's own run, with a trial's settings of what is learnt; None: those for which all is kept."""
    everything = setup.base.failures.model_copy(update={"steps": 1, "perceptron": 1})
    failures = everything if experiment is None else experiment.failures
    base = setup.base.model_copy(update={"failures": failures})
    return RunRequest(base, setup.prepared, RunFolder(setup.base.run_folder), setup.slots, setup.trust)


def keep_run_decisions(setup: TrialSetup) -> None:
    """Keep what the folds of the base's own run made of their cases, which all trials learn from.

    A case that cannot be predicted is named and left out.

    Raises:
        ProblemsFound: another command does the same; no case can be predicted; or the trials that there are have learnt
            from others.
    """
    request, folds = run_request(setup), range(setup.base.split.folds)
    size = size_text(estimate_disk(request.experiment, setup.prepared).decisions)
    console.print(f"disk:     {size} at most in {request.run.failures}", soft_wrap=True)
    lock = {str(request.run.failures): request.run.root / ".failures.lock"}
    with locked("The cases of the run are being predicted already.", lock), counting() as progress:
        sources, problems = keep_all_decisions(request, folds, progress)
    if not sources:
        raise_if_any(problems, "No case could be predicted.", exit_code=1)
    for problem in problems:
        warn(f"{problem.where} is left out: {problem.found}")
    file = setup.folder.root / SOURCES
    if file.is_file():
        refuse_other_sources(str(request.run.root), _sources(setup), sources)
    write_json(file, {"sources": sources})


def _sources(setup: TrialSetup) -> dict[str, str]:
    file = setup.folder.root / SOURCES
    return dict(read_json(file, f"delete {file}: the same command writes it again", keys=["sources"])["sources"])


def train_failure_trial(values: Mapping[str, Any], setup: TrialSetup) -> None:
    """Let the sweep's folds learn with a trial's values, and score their maps; runs in a process of Tune's.

    Raises:
        RuntimeError: a fold failed, which another attempt would not change.
        ValidationError: an experiment cannot have these values together.
    """
    torch.set_num_threads(setup.slots.cpus_per_process)
    trial_id, sources = ray.tune.get_context().get_trial_id(), _sources(setup)
    write_json(setup.run(trial_id).root / VALUES, dict(values))
    experiment = setup.experiment(trial_id, values)
    run = open_run(experiment)
    record_data(run, experiment, setup.prepared)
    request, reports = run_request(setup, experiment), []
    for fold in setup.sweep.folds:
        history = read_history(run.spool, fold)
        if history.state == "failed":
            raise RuntimeError(f"fold {fold}: {history.message}")
        source = digest([sources, experiment.failures.model_dump(mode="json", exclude={"checkpoint_every"}), fold])
        if history.state != "finished" or kept_record(run.fold(fold) / SCORES, source) is None:
            _train_fold(request, fold, sources, run, source)
        reports.append({"epoch": 0} | read_history(run.spool, fold).epochs[0].metrics)
    ray.tune.report(mean_over_folds(reports, setup.sweep))


def _train_fold(request: RunRequest, fold: int, sources: Mapping[str, str], trial: RunFolder, source: str) -> None:
    """Train and score a fold's network, and record its figures as those of an epoch."""
    spool, folder = SpoolWriter(trial.spool, fold, first_epoch=0), trial.fold(fold)
    spool.state("running")
    folder.mkdir(parents=True, exist_ok=True)

    def scored() -> dict[str, Any]:
        return {"rows": score_fold(request, fold, sources, folder / LATEST, source)}

    try:
        rows = compute_once(folder / SCORES, source, scored)["rows"]
        (folder / LATEST).unlink(missing_ok=True)
    except Exception as error:
        spool.state("failed", short_message(error))
        raise RuntimeError(f"fold {fold}: {short_message(error)}") from error
    spool.epoch(0, fold_figures(table_of(rows)))
    spool.state("finished")


def cases_table(setup: TrialSetup) -> pd.DataFrame:
    """Return the figures of each case in all trials, in front of them the trial; what is lost is named."""
    rows = []
    for values in sorted(setup.folder.runs.glob(f"*/{VALUES}")):
        run = RunFolder(values.parent)
        for fold in setup.sweep.folds:
            file = run.fold(fold) / SCORES
            if is_whole(file):
                rows += [{"trial": run.root.name} | row for row in read_json(file)["rows"]]
            elif read_history(run.spool, fold).state == "finished":
                warn(f"trial {run.root.name}, fold {fold}: {file} is lost or damaged, and its cases are left out")
    return table_of(rows)
