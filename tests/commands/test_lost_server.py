"""The MLflow server is killed while folds train, and comes back: every epoch arrives once."""

import itertools

import pytest
from mlflow import MlflowClient

from support.clusters import last_epoch
from support.commands import start_uncseg
from uncseg.tracking.shown import in_order
from uncseg.tracking.spool import fold_file, read_history, read_records

pytestmark = pytest.mark.slow

EPOCHS = 60


def longest_pause_s(run, fold, epochs):
    """Return the longest time between the ends of two epochs."""
    records, _ = read_records(fold_file(run / "spool", fold))
    times = {record["epoch"]: record["time_ms"] / 1000 for record in records if record["kind"] == "epoch"}
    return max(times[b] - times[a] for a, b in itertools.pairwise(epochs))


def test_a_server_that_goes_and_comes_back_gets_every_epoch_once(own_server, four_cases, experiment_file, tmp_path):
    uri = own_server.start()
    training = {"epochs": EPOCHS, "iterations_per_epoch": 20, "checkpoint_every": 2}
    file = experiment_file(four_cases, training=training, tracking={"uri": uri})
    run = tmp_path / "runs/small"
    process = start_uncseg("cross-validate", file, log=tmp_path / "log")
    process.wait_until(lambda: min(last_epoch(run, fold) for fold in range(2)) >= 8)
    own_server.kill()
    gone = [last_epoch(run, fold) for fold in range(2)]
    process.wait_until(lambda: all(last_epoch(run, fold) >= gone[fold] + 25 for fold in range(2)))
    own_server.start()
    process.require()
    text = process.words
    assert text.count("did not take the metrics") == 1
    assert "did not reach MLflow" not in text
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == "uncseg"]
    folds = [
        found for found in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" in found.data.tags
    ]
    assert len(folds) == 2
    for found in folds:
        fold = int(found.data.params["fold"])
        history = read_history(run / "spool", fold)
        assert history.attempt == 1
        metrics = history.epochs[EPOCHS - 1].metrics
        shown = in_order(metrics)
        assert {"train/loss", "val_patch/dice_wt", "uncertainty/union/corr_ema/uncertainty"} <= set(shown)
        for name in shown:
            value = metrics[name]
            recorded = client.get_metric_history(found.info.run_id, name)
            expected = [epoch for epoch in range(EPOCHS) if history.epochs[epoch].metrics.get(name) is not None]
            assert sorted(metric.step for metric in recorded) == expected, name
            assert value is None or max(recorded, key=lambda metric: metric.step).value == pytest.approx(value)
        there, away = range(2, gone[fold]), range(gone[fold], gone[fold] + 25)
        print(
            f"fold {fold}: longest pause between epochs {longest_pause_s(run, fold, there):.2f} s with the server, "
            f"{longest_pause_s(run, fold, away):.2f} s without"
        )
