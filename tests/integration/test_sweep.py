"""A sweep as a user runs it: real trials of two folds in step, the table, MLflow, the best experiment."""

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from clusters import kill_command, last_epoch, wait_until
from commands import run_uncseg, start_uncseg
from uncseg.config import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.files import read_json
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

METRIC, EPOCHS, TRIALS = "val_patch/dice_mean", 6, 3


def test_a_sweep_that_is_killed_goes_on_with_the_same_trials(experiment_file, tmp_path):
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0)
    base = experiment_file(tmp_path / "cases", training={"epochs": EPOCHS, "iterations_per_epoch": 30})
    space = {"loss.unc_weight": {"uniform": [0, 1]}, "loss.weight_ce.ed": {"choice": [0.2, 1]}}
    content = {"name": "search", "base": str(base), "space": space, "folds": [0, 1], "trials": TRIALS}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content | {"scheduler": {"type": "fifo"}}), encoding="utf-8")
    trials = tmp_path / "runs/search/trials"

    first = start_uncseg("sweep", file, log=tmp_path / "first.log")
    first.log = tmp_path / "first.log"
    # in the middle of the second trial
    wait_until(lambda: len(known := started(trials)) == 2 and last_epoch(known[1], 0) >= 2, first)
    kill_command(first)
    before = {run.name: read_json(run / "values.json") for run in started(trials)}

    second = run_uncseg("sweep", file, limit_s=590)
    assert second.returncode == 0, second.stdout + second.stderr
    after = {run.name: read_json(run / "values.json") for run in started(trials)}
    assert len(after) == TRIALS
    assert before.items() <= after.items()
    attempts = {run.name: read_history(run / "spool", 0).attempt for run in started(trials)}
    assert sorted(attempts.values()) == [1, 1, 2]  # the first was not run again, the second went on

    table = pd.read_parquet(tmp_path / "runs/search/tables/trials.parquet").set_index("trial")
    assert set(table.index) == set(after)
    assert set(table["state"]) == {"finished"}
    assert table["objective"].is_monotonic_decreasing
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = runs_by_parent(client)
    (sweep_run,) = runs[None]
    assert {run.info.run_name for run in runs[sweep_run.info.run_id]} == set(after)
    for trial in runs[sweep_run.info.run_id]:
        mean = values(client, trial)
        folds = [values(client, fold) for fold in runs[trial.info.run_id]]
        assert len(folds) == 2
        np.testing.assert_allclose(mean, np.mean(folds, axis=0), rtol=1e-6)
        assert mean[-1] == pytest.approx(table.loc[trial.info.run_name, "objective"])
        assert float(trial.data.params["loss.unc_weight"]) == after[trial.info.run_name]["loss.unc_weight"]
    best = load_experiment(tmp_path / "runs/search/best.yaml")
    assert best.loss.unc_weight == after[table.index[0]]["loss.unc_weight"]


def started(trials):
    """Folders of the trials, in the order of their numbers."""
    return sorted(file.parent for file in trials.glob("*/values.json"))


def runs_by_parent(client):
    (experiment,) = [found for found in client.search_experiments() if found.name == "uncseg"]
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        runs.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run)
    return runs


def values(client, run):
    history = client.get_metric_history(run.info.run_id, METRIC)
    assert sorted(metric.step for metric in history) == list(range(EPOCHS))
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]
