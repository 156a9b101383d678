import numpy as np
from PIL import Image

from support.progress import wait_until
from support.written_runs import TAGS, entries, rows, status, train
from uncseg.tracking.destination import open_store
from uncseg.tracking.manifest import read_manifest, update_manifest
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import epoch_table


def test_each_fold_gets_every_metric_with_its_original_time(run, store, make_syncer):
    train(run, 0, 3)
    train(run, 1, 2, finish=False).checkpoint(1)
    assert make_syncer().push_once()
    parent, folds = entries(run)
    assert rows(store, folds[0].run_id, "loss") == [(0, 0), (1, 0.1), (2, 0.2)]
    assert rows(store, folds[0].run_id, "corr") == [(0, 0), (1, 0.01), (2, 0.02)]
    assert rows(store, folds[1].run_id, "loss") == [(0, 1), (1, 1.1)]
    history = store.client.get_metric_history(folds[1].run_id, "loss")
    table = epoch_table(run.spool).query("fold == 1")
    assert sorted(row.timestamp for row in history) == table["time_ms"].tolist()
    child = store.client.get_run(folds[0].run_id)
    assert "nothing" not in child.data.metrics
    assert child.data.tags["mlflow.parentRunId"] == parent.run_id
    assert child.data.tags["uncseg.fold"] == "0"
    assert child.data.params == {"fold": "0"}
    top = store.client.get_run(parent.run_id)
    assert top.info.run_name == "demo"
    assert top.data.params == {"loss.unc_weight": "0.4"}  # not where the run computes and keeps its files
    for tags in (child.data.tags, top.data.tags):
        assert TAGS.items() <= tags.items()


def test_the_parent_shows_mean_and_deviation_over_folds(run, store, make_syncer):
    for fold in range(3):
        train(run, fold, 4)
    assert make_syncer(folds=range(3)).push_once()
    parent, _ = entries(run)
    losses = np.array([[fold + epoch / 10 for epoch in range(4)] for fold in range(3)])
    np.testing.assert_allclose([value for _, value in rows(store, parent.run_id, "loss")], losses.mean(axis=0))
    deviation = [value for _, value in rows(store, parent.run_id, "std/loss")]
    np.testing.assert_allclose(deviation, np.sqrt(((losses - losses.mean(axis=0)) ** 2).sum(axis=0) / 3))
    assert rows(store, parent.run_id, "corr") == [(epoch, epoch / 100) for epoch in range(4)]  # one fold has it


def test_the_parent_waits_for_the_slowest_fold_but_not_for_a_finished_one(run, store, make_syncer):
    train(run, 0, 3)
    slow = train(run, 1, 5, finish=False)
    slow.checkpoint(1)
    syncer = make_syncer()
    assert syncer.push_once()
    parent, _ = entries(run)
    np.testing.assert_allclose(rows(store, parent.run_id, "loss"), [(0, 0.5), (1, 0.6)])
    slow.state("finished")
    assert syncer.push_once()
    expected = [(0, 0.5), (1, 0.6), (2, 0.7), (3, 1.3), (4, 1.4)]
    np.testing.assert_allclose(rows(store, parent.run_id, "loss"), expected)


def test_a_fold_that_has_not_begun_holds_the_mean_back(run, store, make_syncer):
    train(run, 0, 2)
    assert make_syncer().push_once()
    parent, folds = entries(run)
    assert rows(store, parent.run_id, "loss") == []
    assert [status(store, folds[fold]) for fold in (0, 1)] == ["FINISHED", "SCHEDULED"]


def test_epochs_that_a_restart_trains_again_are_in_mlflow_once_and_as_trained_last(run, store, make_syncer):
    first = train(run, 0, 5, finish=False)
    first.checkpoint(2)
    syncer = make_syncer(folds=[0])
    assert syncer.push_once()
    _, folds = entries(run)
    assert rows(store, folds[0].run_id, "loss") == [(0, 0), (1, 0.1), (2, 0.2)]
    assert store.client.get_run(folds[0].run_id).data.tags["uncseg.epochs_trained"] == "5"
    train(run, 0, 6, first_epoch=3, shift=7)
    assert syncer.push_once()
    parent, again = entries(run)
    assert again[0].run_id == folds[0].run_id
    expected = [(0, 0), (1, 0.1), (2, 0.2), (3, 7.3), (4, 7.4), (5, 7.5)]
    for run_id in (folds[0].run_id, parent.run_id):
        np.testing.assert_allclose(rows(store, run_id, "loss"), expected)


def test_runs_with_void_epochs_are_created_again(run, store, make_syncer):
    for fold in (0, 1):
        train(run, fold, 4)
    syncer = make_syncer()
    assert syncer.push_once()
    old_parent, old = entries(run)
    train(run, 0, 5, first_epoch=2, shift=7)  # epochs 2 and 3 had been safe, and were not
    assert syncer.push_once()
    parent, folds = entries(run)
    assert not store.has_run(old[0].run_id)
    assert not store.has_run(old_parent.run_id)
    assert folds[1].run_id == old[1].run_id
    np.testing.assert_allclose(rows(store, folds[0].run_id, "loss"), [(0, 0), (1, 0.1), (2, 7.2), (3, 7.3), (4, 7.4)])
    np.testing.assert_allclose(rows(store, parent.run_id, "loss"), [(0, 0.5), (1, 0.6), (2, 4.2), (3, 4.3), (4, 7.4)])
    for entry in folds.values():
        assert store.client.get_run(entry.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_a_failed_fold_shows_its_end_and_can_be_resumed(run, store, make_syncer):
    writer = train(run, 0, 4, finish=False)
    writer.checkpoint(1)
    writer.state("failed", "loss is NaN")
    assert make_syncer(folds=[0]).stop() == 0
    parent, folds = entries(run)
    assert [step for step, _ in rows(store, folds[0].run_id, "loss")] == [0, 1, 2, 3]
    assert [status(store, entry) for entry in (parent, folds[0])] == ["FAILED", "FAILED"]
    train(run, 0, 4, first_epoch=2, shift=7)
    assert make_syncer(folds=[0]).stop() == 0
    parent, folds = entries(run)
    for entry in (parent, folds[0]):
        np.testing.assert_allclose(rows(store, entry.run_id, "loss"), [(0, 0), (1, 0.1), (2, 7.2), (3, 7.3)])
        assert status(store, entry) == "FINISHED"


def test_pushing_again_changes_nothing_even_with_an_older_manifest(run, store, make_syncer):
    for fold in (0, 1):
        train(run, fold, 3)
    assert make_syncer().push_once()
    parent, folds = entries(run)
    before = [rows(store, entry.run_id, name) for entry in (parent, *folds.values()) for name in ("loss", "corr")]
    record = MlflowRecord.read(run.manifest)
    for entry in (record.parent, *record.folds.values()):
        entry.pushed_epoch = -1  # as after a kill between MLflow's answer and the manifest
    record.folds[1].run_id = ""  # and one between making a run and noting its id
    record.write(run.manifest)
    assert make_syncer().push_once()
    assert entries(run)[1][1].run_id == folds[1].run_id
    after = [rows(store, entry.run_id, name) for entry in (parent, *folds.values()) for name in ("loss", "corr")]
    assert after == before


def test_interrupted_runs_are_killed_and_run_again_after_resuming(run, store, make_syncer):
    train(run, 0, 1)
    writer = train(run, 1, 2, finish=False)
    syncer = make_syncer(interval_s=60)
    syncer.start()
    assert syncer.stop() == 0
    parent, folds = entries(run)
    assert [status(store, entry) for entry in (parent, folds[0], folds[1])] == ["KILLED", "FINISHED", "KILLED"]
    writer.restart(0)
    assert make_syncer().push_once()
    assert [status(store, entry) for entry in (parent, folds[0], folds[1])] == ["RUNNING", "FINISHED", "RUNNING"]
    train(run, 1, 1)
    resumed = make_syncer()
    assert resumed.stop() == 0
    assert [status(store, entry) for entry in (parent, folds[0], folds[1])] == ["FINISHED"] * 3
    assert resumed.stop("failed") == 0
    assert [status(store, entry) for entry in (parent, folds[0], folds[1])] == ["FAILED", "FINISHED", "FINISHED"]


def test_the_thread_follows_the_spool_and_survives_a_restart_of_itself(run, store, make_syncer):
    writer = train(run, 0, 2, finish=False)
    syncer = make_syncer(folds=[0], interval_s=0.01)
    for epoch in (1, 2, 3):
        syncer.start()
        writer.epoch(epoch, {"loss": epoch / 10})
        writer.checkpoint(epoch)
        wait_until(lambda n=epoch: run.manifest.exists() and entries(run)[1][0].pushed_epoch >= n, run.root)
        syncer.stop("interrupted")
    _, folds = entries(run)
    assert rows(store, folds[0].run_id, "loss") == [(0, 0), (1, 0.1), (2, 0.2), (3, 0.3)]


def test_commands_that_train_one_fold_each_share_a_parent(run, store, make_syncer):
    train(run, 0, 2)
    assert make_syncer(folds=[0]).stop() == 0
    train(run, 1, 2)
    assert make_syncer(folds=[1]).stop() == 0
    parent, folds = entries(run)
    assert sorted(folds) == [0, 1]
    np.testing.assert_allclose(rows(store, parent.run_id, "loss"), [(0, 0.5), (1, 0.6)])
    children = store.client.search_runs([store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    assert {child.info.run_id for child in children} == {entry.run_id for entry in folds.values()}


def test_the_manifest_keeps_the_keys_of_others(run, make_syncer):
    update_manifest(run.manifest, digests={"dataset": "a"})
    train(run, 0, 1)
    assert make_syncer(folds=[0]).push_once()
    assert read_manifest(run.manifest)["digests"] == {"dataset": "a"}


def test_pictures_that_the_store_does_not_take_cost_no_metric(run, make_syncer, tmp_path, caplog):
    uri = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    syncer = make_syncer(folds=[0], uri=uri)
    writer = train(run, 0, 2, finish=False)
    writer.checkpoint(1)
    run.progress.mkdir()
    for epoch in (0, 1):
        Image.new("RGB", (8, 8)).save(run.progress / f"fold_0_epoch_000{epoch}.png")
    place = tmp_path / "other" / "mlflow_artifacts"
    place.parent.mkdir()
    place.write_text("no folder")
    assert not syncer.push_once()
    assert "did not store pictures of the training" in caplog.text
    store = open_store(uri, "uncseg")
    _, folds = entries(run)
    assert [step for step, _ in rows(store, folds[0].run_id, "loss")] == [0, 1]
    assert syncer.push_once()  # and goes on without them
    assert syncer.stop("interrupted") > 0
    place.unlink()
    again = make_syncer(folds=[0], uri=uri)
    assert again.finish()
    assert again.stop("interrupted") == 0
    names = [item.path for item in store.client.list_artifacts(folds[0].run_id, "images")]
    assert sorted(name.split("+step+")[1][0] for name in names if name.endswith(".png")) == ["0", "1"]
