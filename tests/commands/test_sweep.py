"""``uncseg sweep`` with real trials of two folds: tables, MLflow, promotion, trials that fail, a killed command."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from support.clusters import last_epoch, ray_start
from support.commands import run_process, run_uncseg, start_uncseg
from uncseg.config.experiment import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.files import read_json
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

DICE, CORR = "val_patch/dice_mean", "uncertainty/union/corr_ema/uncertainty"


@pytest.fixture
def sweep_file(experiment_file, tmp_path):
    write_phantoms(tmp_path / "cases", cases=6, size=28, seed=0, task=paper_task())

    def write(epochs, iterations, folds, **fields):
        training = {"epochs": epochs, "iterations_per_epoch": iterations, "checkpoint_every": 2}
        base = experiment_file(tmp_path / "cases", split={"folds": folds}, training=training)
        file = tmp_path / "sweep.yaml"
        content = {"name": "search", "base": str(base), "folds": [0, 1]} | fields
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    return write


def test_every_end_of_a_trial_is_in_the_table_and_in_mlflow(sweep_file, tmp_path):
    """Some trials fail, some are stopped, some finish and one is promoted."""
    space = {
        "loss.unc_weight": {"grid_search": [1.0, 0.7, 0.4, 0.1]},  # Dice falls a little, with these cases and seeds
        "training.initial_lr": {"grid_search": [0.01, 1e300]},  # the second is too large for a float32
    }
    file = sweep_file(
        5,
        6,
        3,
        space=space,
        trials=8,
        objectives=[{"metric": DICE}, {"metric": CORR}],
        scheduler={"type": "asha", "metric": DICE, "grace_epochs": 1, "reduction_factor": 2},
        promote={"top": 1, "folds": "all"},
    )
    run_uncseg("sweep", file, folder=tmp_path)
    folder = tmp_path / "runs/search"
    table = pd.read_parquet(folder / "tables/trials.parquet").set_index("trial")
    assert sorted(zip(table["loss.unc_weight"], table["training.initial_lr"], strict=True)) == [
        (unc, lr) for unc in (0.1, 0.4, 0.7, 1.0) for lr in (0.01, 1e300)
    ]
    assert (table["state"][table["training.initial_lr"] == 1e300] == "failed").all()
    assert set(table["state"]) == {"finished", "stopped", "failed"}
    assert (table["epochs"][table["state"] == "stopped"] < 5).all()

    promoted = table.index[0]
    assert table["promoted"].tolist() == [True, *[False] * 7]
    assert table.loc[promoted, "folds"] == 3
    spool = folder / "trials" / promoted / "spool"
    assert [read_history(spool, fold).attempt for fold in range(3)] == [1, 1, 1]  # no fold was trained twice

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = runs_by_parent(client)
    (sweep_run,) = runs[None]
    assert sweep_run.info.status == "FINISHED"
    assert {"best.yaml", "figures/pareto.png", "tables/importances.csv"} <= artifacts(client, sweep_run)
    trials = {run.info.run_name: run for run in runs[sweep_run.info.run_id]}
    assert set(trials) == set(table.index)
    statuses = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    for rank, (name, row) in enumerate(table.iterrows(), start=1):
        assert trials[name].info.status == statuses[row["state"]]
        assert trials[name].data.tags["uncseg.rank"] == str(rank)
        assert trials[name].data.tags["uncseg.pareto_front"] == str(row["front"]).lower()
        assert float(trials[name].data.params["loss.unc_weight"]) == row["loss.unc_weight"]
    assert_reports_are_means_over_folds(client, runs, trials, folder)

    best = load_experiment(folder / "best.yaml")
    assert best.loss.unc_weight == table.loc[promoted, "loss.unc_weight"]
    run_uncseg("sweep", file, folder=tmp_path)  # nothing is left to do
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "tables/trials.parquet").set_index("trial"), table)


def test_a_sweep_that_is_killed_goes_on_with_the_same_trials(sweep_file, tmp_path):
    space = {"loss.unc_weight": {"uniform": [0, 1]}, "loss.weight_ce.ed": {"choice": [0.2, 1]}}
    search = {"type": "tpe", "random_trials": 2}
    file = sweep_file(6, 30, 2, space=space, trials=4, search=search, scheduler={"type": "fifo"})
    trials = tmp_path / "runs/search/trials"
    with ray_start(2) as cluster:
        command = ("sweep", file, "--set", f"resources.ray_address={cluster.address}")
        first = start_uncseg(*command, log=tmp_path / "first.log")
        # in the middle of the third trial, the first that Optuna's model has drawn
        first.wait_until(lambda: len(known := started(trials)) == 3 and last_epoch(known[2], 0) >= 2)
        first.kill()
        before = {run.name: read_json(run / "values.json") for run in started(trials)}

        run_uncseg(*command, folder=tmp_path)
        assert_all_free(cluster, tmp_path)
        table_file = tmp_path / "runs/search/tables/trials.parquet"
        before_third = pd.read_parquet(table_file)
        run_uncseg(*command, folder=tmp_path)  # nothing is left to do
        pd.testing.assert_frame_equal(pd.read_parquet(table_file), before_third)
    after = {run.name: read_json(run / "values.json") for run in started(trials)}
    assert len(after) == 4
    assert before.items() <= after.items()
    attempts = [read_history(run / "spool", 0).attempt for run in started(trials)]
    assert attempts == [1, 1, 2, 1]  # none was run again, the third went on
    table = pd.read_parquet(tmp_path / "runs/search/tables/trials.parquet").set_index("trial")
    assert set(table.index) == set(after)
    assert set(table["state"]) == {"finished"}
    assert table[DICE].is_monotonic_decreasing

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = runs_by_parent(client)
    (sweep_run,) = runs[None]
    known = {run.info.run_name: run for run in runs[sweep_run.info.run_id]}
    assert set(known) == set(after)
    assert_reports_are_means_over_folds(client, runs, known, tmp_path / "runs/search", metrics=(DICE,))


def assert_reports_are_means_over_folds(client, runs, trials, folder, metrics=(DICE, CORR)):
    """What was reported to search and scheduler in every epoch, against the fold runs' metrics in MLflow."""
    reported = pd.read_parquet(folder / "tables/epochs.parquet")
    assert_every_epoch_was_reported(reported, pd.read_parquet(folder / "tables/trials.parquet").set_index("trial"))
    assert set(reported["trial"]) <= set(trials)
    for name, rows in reported.groupby("trial"):
        folds = [run for run in runs[trials[name].info.run_id] if run.data.params["fold"] in ("0", "1")]
        assert len(folds) == 2
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))
        for metric in metrics:
            by_fold = [history(client, fold, metric) for fold in folds]
            for _, row in rows.iterrows():
                values = [values.get(row["epoch"] - 1) for values in by_fold]
                if None in values:
                    assert abs(row[metric]) == 1e9  # the worst there is
                else:
                    np.testing.assert_allclose(row[metric], np.mean(values), rtol=1e-9)


def assert_every_epoch_was_reported(reported, table):
    last = reported.groupby("trial")["epoch"].max().reindex(table.index, fill_value=0)
    finished, stopped = table["state"] == "finished", table["state"] == "stopped"
    assert (last[finished] == table["epochs"][finished]).all()
    # the folds of a trial that is stopped may write one more epoch before the kill reaches them
    unreported = table["epochs"][stopped] - last[stopped]
    assert unreported.isin([0, 1]).all()
    assert (last[stopped] > 0).all()  # by what it had reported
    # a fold that failed took the other folds' last reports with it
    assert (last <= table["epochs"]).all()


def history(client, run, metric):
    return {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}


def artifacts(client, run, folder=None):
    found = client.list_artifacts(run.info.run_id, folder)
    return {one.path for one in found} | {p for one in found if one.is_dir for p in artifacts(client, run, one.path)}


def started(trials):
    """Return the folders of the trials, in the order in which they began."""
    return sorted((file.parent for file in trials.glob("*/values.json")), key=lambda run: first_ms(run))


def first_ms(run):
    begun = read_history(run / "spool", 0).first_ms
    return float("inf") if begun is None else begun


def assert_all_free(cluster, folder):
    """Check what ``ray status`` says to a user: a report that Ray renews every few seconds, so it is asked again."""
    ray = Path(sys.executable).with_name("ray")
    for _ in range(20):
        said = run_process(ray, "status", "--address", cluster.address, folder=folder)
        used = re.findall(r"([\d.]+)/([\d.]+) CPU", said)
        assert used, said
        if all(float(taken) == 0 for taken, _ in used):
            return
    pytest.fail(said, pytrace=False)


def runs_by_parent(client):
    (experiment,) = [found for found in client.search_experiments() if found.name == "uncseg"]
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        runs.setdefault(run.data.tags.get("mlflow.parentRunId"), []).append(run)
    return runs
