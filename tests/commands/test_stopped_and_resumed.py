"""The main job as a user runs it: the command, stopped by Ctrl-C, run again; its spool and MLflow after it."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from support.commands import run_uncseg, start_uncseg, uncseg
from support.small_experiment import write_small_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.spool import read_history

EPOCHS, CHECKPOINT_EVERY = 16, 2


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two folds one after the other; Ctrl-C in the middle of the second; the same command again."""
    root = tmp_path_factory.mktemp("run")
    write_phantoms(root / "cases", cases=4, size=28, seed=0, task=paper_task())
    incomplete = root / "cases/BraTS-GLI-77777-000/BraTS-GLI-77777-000-t1n.nii.gz"  # excluded, from first to last
    incomplete.parent.mkdir()
    incomplete.write_bytes(b"")
    file = write_small_experiment(
        root,
        dataset={"exclude": ["BraTS-GLI-77777-000"]},
        training={"epochs": EPOCHS, "checkpoint_every": CHECKPOINT_EVERY},
        resources={"folds_at_once": 1},
        evaluation={"last_epochs": 2},
    )
    run = root / "runs" / "small"
    first = start_uncseg("cross-validate", file, log=root / "first.log")

    def finished_fold_while_the_other_trains():
        histories = [read_history(run / "spool", fold) for fold in range(2)]
        for finished, running in ((0, 1), (1, 0)):
            if histories[finished].state == "finished" and histories[running].state == "running":
                return histories[running].last_epoch >= 3 and [finished]
        return None

    (finished_fold,) = first.wait_until(finished_fold_while_the_other_trains)
    os.killpg(first.pid, signal.SIGINT)  # what a terminal sends
    code = first.end()
    stopped_at = read_history(run / "spool", 1 - finished_fold).last_epoch
    return {
        "root": root,
        "run": run,
        "code": code,
        "first_output": first.output,
        "finished_fold": finished_fold,
        "stopped_at": stopped_at,
        "second_output": run_uncseg("cross-validate", file, folder=root),
    }


def test_ctrl_c_says_what_to_do(stopped):
    assert stopped["code"] == 130
    assert stopped["first_output"].count("stopped; the same command goes on from here") == 1
    for noise in ("Traceback", "core worker", "SIGTERM"):
        assert noise not in stopped["first_output"]


def test_the_second_command_prints_tables_and_where_the_rest_lies(stopped):
    for text in ("Table 1", "Table 2", "uncseg ui ", "report:", "figures:"):
        assert text in stopped["second_output"]


def test_an_excluded_case_is_left_out_from_first_to_last(stopped):
    per_case = pd.read_parquet(stopped["run"] / "tables" / "per_case.parquet")
    assert sorted(per_case["case"]) == sorted(path.name for path in (stopped["root"] / "cases").glob("*-0000?-00?"))


def test_finished_folds_are_not_trained_again_and_others_go_on(stopped):
    run, done = stopped["run"], stopped["finished_fold"]
    assert read_history(run / "spool", done).attempt == 1
    history = read_history(run / "spool", 1 - done)
    assert history.attempt == 2
    # at most the epochs since the last checkpoint and the one in the making are lost
    assert history.first_epochs[2] > stopped["stopped_at"] - CHECKPOINT_EVERY
    assert sorted(history.epochs) == list(range(EPOCHS))


def test_mlflow_holds_each_epoch_once(stopped):
    client = MlflowClient(f"sqlite:///{stopped['root']}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("uncseg").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == 3
    assert all(run.info.status == "FINISHED" for run in runs)
    epochs = pd.read_parquet(stopped["run"] / "tables" / "epochs.parquet")
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted(metric.step for metric in history) == list(range(EPOCHS))
    mean = {m.step: m.value for m in client.get_metric_history(parent.info.run_id, "val_patch/dice_wt")}
    expected = epochs.groupby("epoch")["val_patch/dice_wt"].mean()
    np.testing.assert_allclose([mean[epoch] for epoch in range(EPOCHS)], expected, rtol=1e-6)


def test_a_third_command_has_nothing_left_to_do(stopped, local_ray):
    before = read_history(stopped["run"] / "spool", 0)
    assert "already finished: 0, 1" in uncseg("cross-validate", stopped["root"] / "experiment.yaml")
    after = read_history(stopped["run"] / "spool", 0)
    assert (after.attempt, after.first_ms, after.last_ms) == (before.attempt, before.first_ms, before.last_ms)


def test_another_setting_under_the_same_name_is_refused(stopped):
    file = stopped["root"] / "experiment.yaml"
    assert "loss.unc_weight" in uncseg("cross-validate", file, "--set", "loss.unc_weight=0.1", code=2)
