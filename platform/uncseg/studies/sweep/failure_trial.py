"""A trial of a sweep over what folds learn from failures: failure networks of a finished run, with other settings.

The run itself is not changed. A trial takes what one fold takes; its folds learn one after the other.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray.tune
import torch

from uncseg.config.experiment import Experiment
from uncseg.console import counting
from uncseg.dataset.splits import read_splits
from uncseg.errors import raise_if_any
from uncseg.evaluation.uncertainty import protocol_mask, score_failures
from uncseg.files import write_json
from uncseg.layout import RunFolder
from uncseg.method.failures.failure_model import FailureModel
from uncseg.metric_keys import JUDGED_KINDS, LEAD
from uncseg.runs.cross_fitting import keep_all_decisions, learn_from
from uncseg.runs.failure_data import open_case, reference_of
from uncseg.runs.fold_request import RunRequest
from uncseg.runs.run_data import read_data, record_data
from uncseg.runs.run_opening import locked_folds, open_run
from uncseg.runs.train_folds import short_message
from uncseg.studies.sweep.train_trial import TrialSetup, mean_over_folds
from uncseg.studies.sweep.trials import VALUES
from uncseg.table_files import read_table, write_table
from uncseg.tracking.spool import SpoolWriter, read_history

CASES = "cases"
"""Table in a trial's folder, and of the sweep: each case's figures by the learnt map and by calibrated p."""
LEARNT, FLOOR = "cross_fitted", "calibrated"


def judged_request(setup: TrialSetup, experiment: Experiment | None = None) -> RunRequest:
    """Return the base's own run, with a trial's settings of what is learnt."""
    failures = setup.base.failures if experiment is None else experiment.failures
    if not failures.steps:  # the cases are kept whole for a network alone
        failures = failures.model_copy(update={"steps": 1})
    base = setup.base.model_copy(update={"failures": failures})
    return RunRequest(base, setup.prepared, RunFolder(setup.base.run_folder), setup.slots, setup.trust)


def keep_run_decisions(setup: TrialSetup) -> None:
    """Keep what the folds of the base's own run made of their cases, which all trials learn from.

    Raises:
        ProblemsFound: some cases cannot be predicted.
    """
    request, folds = judged_request(setup), range(setup.base.split.folds)
    with locked_folds(request.run, folds), counting() as progress:
        _, problems = keep_all_decisions(request, folds, progress)
    raise_if_any(problems, "Some cases could not be predicted.", exit_code=1)


def train_failure_trial(values: Mapping[str, Any], setup: TrialSetup) -> None:
    """Let the sweep's folds learn with a trial's values, and judge their maps; runs in a process of Tune's.

    Raises:
        RuntimeError: a fold failed, which another attempt would not change.
        ValidationError: an experiment cannot have these values together.
    """
    torch.set_num_threads(setup.slots.cpus_per_process)
    trial_id = ray.tune.get_context().get_trial_id()
    write_json(setup.run(trial_id).root / VALUES, dict(values))
    experiment = setup.experiment(trial_id, values)
    run = open_run(experiment)
    record_data(run, experiment, setup.prepared)
    request, reports = judged_request(setup, experiment), []
    for fold in setup.sweep.folds:
        if read_history(run.spool, fold).state != "finished":
            _train_fold(request, fold, run)
        reports.append({"epoch": 0} | read_history(run.spool, fold).epochs[0].metrics)
    ray.tune.report(mean_over_folds(reports, setup.sweep))


def _train_fold(request: RunRequest, fold: int, trial: RunFolder) -> None:
    """Train and judge a fold's network, and record its figures as those of an epoch."""
    spool = SpoolWriter(trial.spool, fold, first_epoch=0)
    spool.state("running")
    try:
        rows = judge_fold(request, fold)
    except Exception as error:
        spool.state("failed", short_message(error))
        raise RuntimeError(f"fold {fold}: {short_message(error)}") from error
    kept = read_table(trial.tables, CASES)
    parts = [rows] if kept is None else [kept[kept["fold"] != fold], rows]
    write_table(pd.concat(parts, ignore_index=True), trial.tables, CASES)
    spool.epoch(0, figures_of(rows))
    spool.state("finished")


def judge_fold(request: RunRequest, fold: int) -> pd.DataFrame:
    """Let a fold learn from the other folds' cases, and score what that says of its own ones.

    Returns:
        Columns fold, case, patient, map, and :data:`~uncseg.metric_keys.JUDGED_KINDS`: against the failures of the main
        region on the preprocessed grid, in the union mask.
    """
    splits = read_splits(request.prepared.splits)
    others = sorted(case for number, split in enumerate(splits) if number != fold for case in split["val"])
    with tempfile.TemporaryDirectory() as folder:
        model, _ = learn_from(request, fold, others, Path(folder) / "latest.pth", "")
    data = read_data(request.run)
    assert data is not None
    rows = []
    for case in sorted(splits[fold]["val"]):
        keys = {"fold": fold, "case": case, "patient": data.cases[case].patient}
        rows += [keys | {"map": name} | scores for name, scores in _scores(request, model, case).items()]
    return pd.DataFrame(rows)


def _scores(request: RunRequest, model: FailureModel, case_id: str) -> dict[str, dict[str, float]]:
    task = request.experiment.dataset.task
    main, whole = list(task.regions).index(task.main_region), (slice(None),) * 4
    case, reference = open_case(request, case_id), reference_of(request, case_id)[main]
    logits, decisions = case.logits[whole], case.decisions[whole]
    failure, mask = decisions[main] != reference, protocol_mask(reference, decisions[main], "union")
    learnt = model.failures(np.asarray(case.images[whole]), logits, decisions, request.experiment.evaluation.tile_step)
    assert learnt is not None
    maps = {LEARNT: learnt, FLOOR: model.calibrated(logits, decisions)}
    scores = {name: score_failures(values[main], failure, mask) for name, values in maps.items()}
    return {name: {kind: own[kind] for kind in JUDGED_KINDS} for name, own in scores.items()}


def figures_of(rows: pd.DataFrame) -> dict[str, float]:
    """Return the means over a fold's cases, and by how much the learnt map is better than calibrated p on them."""
    by_map = {name: part.set_index("case")[list(JUDGED_KINDS)] for name, part in rows.groupby("map")}
    means = by_map[LEARNT].mean()
    leads = ((by_map[LEARNT] - by_map[FLOOR]) * pd.Series(JUDGED_KINDS)).mean()
    figures = {f"failures/{kind}": float(means[kind]) for kind in JUDGED_KINDS}
    return figures | {f"failures/{kind}{LEAD}": float(leads[kind]) for kind in JUDGED_KINDS}


def cases_table(setup: TrialSetup) -> pd.DataFrame:
    """Return the figures of each case in all trials, behind a column trial."""
    tables = {file.parent.name: read_table(RunFolder(file.parent).tables, CASES) for file in _trials(setup)}
    named = [table.assign(trial=name) for name, table in tables.items() if table is not None]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()


def _trials(setup: TrialSetup) -> list[Path]:
    return sorted(setup.folder.runs.glob(f"*/{VALUES}"))
