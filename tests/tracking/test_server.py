"""The syncer against a real MLflow server that is killed while it takes metrics."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

from support.progress import wait_until
from support.written_runs import save_final_checkpoint
from uncseg.tracking.destination import Destination, open_store
from uncseg.tracking.record import MlflowRecord, RunDescription
from uncseg.tracking.spool import SpoolWriter
from uncseg.tracking.syncer import Syncer

METRICS = 60


def train(run, fold, epochs):
    writer = SpoolWriter(run.spool, fold, first_epoch=0)
    for epoch in range(epochs):
        writer.epoch(epoch, {f"loss_{i}": fold + epoch / 10 for i in range(METRICS)})
    writer.state("finished")
    save_final_checkpoint(run, fold)


def count_rows(database):
    with sqlite3.connect(database) as connection:
        return connection.execute("select count(*) from metrics").fetchone()[0]


def test_a_server_killed_in_the_middle_loses_nothing(own_server, database, run, tmp_path):
    uri = own_server.start()
    syncer = Syncer(run, Destination(uri, "uncseg"), RunDescription("demo", {}, {}), [0, 1])
    epochs = 150
    for fold in (0, 1):
        train(run, fold, epochs)
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(syncer.push_once)
        wait_until(lambda: count_rows(database) >= 2000, database)
        own_server.kill()
        assert not pushing.result()
    assert not syncer.finish()
    assert syncer.stop() > 0
    assert 2000 <= count_rows(database) < 2 * epochs * METRICS

    own_server.start()
    assert syncer.finish()
    assert syncer.stop() == 0
    store = open_store(uri, "uncseg")
    record = MlflowRecord.read(run.manifest)
    for fold in (0, 1):
        entry = record.folds[fold]
        history = store.client.get_metric_history(entry.run_id, "loss_7")
        assert sorted((row.step, row.value) for row in history) == [(e, fold + e / 10) for e in range(epochs)]
        assert store.client.get_run(entry.run_id).info.status == "FINISHED"
        (model,) = store.client.search_logged_models([store.experiment_id], f"source_run_id = '{entry.run_id}'")
        assert model.model_id == entry.model_id
    assert len(store.client.search_runs([store.experiment_id])) == 3
    # two folds, and the parent's mean and deviation
    assert count_rows(database) == 4 * epochs * METRICS
    assert len(list((tmp_path / "artifacts").rglob("checkpoint_final.pth"))) == 2
