"""Runs and storages that are moved or copied, with the database in them: real folders, real databases."""

import hashlib
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.commands import run_uncseg, uncseg
from support.written_runs import EXPERIMENT, entries, rows, train
from uncseg.config.addresses import sqlite_address, sqlite_path
from uncseg.layout import RunFolder
from uncseg.tracking.destination import open_store
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.ui_server import run_page


@pytest.fixture
def stored(run, make_syncer, new_database):
    """A run whose metrics and experiment are in the database of its own storage."""
    uri = new_database("runs")
    syncer = make_syncer(folds=[0], uri=uri)
    train(run, 0, 3)
    assert syncer.finish()
    assert syncer.stop() == 0
    return run


def content(folder):
    """Return the digest of every file below a folder, except locks."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.endswith(".lock")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def sync(folder):
    return uncseg("sync", folder).replace("\n", " ")


def sync_in_a_process(folder, logs):
    """Sync as a user does after a move: a process that has seen a run remembers where its files lay."""
    return run_uncseg("sync", folder, folder=logs).replace("\n", " ")


def loss(run):
    """Return what the MLflow of a run, as its manifest says, has of its first fold."""
    record = MlflowRecord.read(run.manifest)
    store = open_store(record.tracking_uri, record.experiment)
    _, folds = entries(run)
    return store, rows(store, folds[0].run_id, "loss")


def artifact(store, run):
    """Return the file in which MLflow keeps the run's experiment."""
    parent, _ = entries(run)
    place = urlsplit(store.client.get_run(parent.run_id).info.artifact_uri)
    return Path(unquote(place.path), "experiment.yaml")


def test_a_moved_storage_has_its_runs_and_their_files(stored, tmp_path):
    before, _ = entries(stored)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere" / "kept")
    moved = RunFolder(tmp_path / "elsewhere" / "kept" / "demo")
    assert before.run_id in (run_page(MlflowRecord.read(moved.manifest)) or "")
    train(moved, 0, 4, first_epoch=3)
    output = sync_in_a_process(moved.root, tmp_path)
    assert f"{tmp_path}/elsewhere/kept/mlflow.db" in output
    assert entries(moved)[0].run_id == before.run_id
    store, found = loss(moved)
    assert found == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert artifact(store, moved).is_relative_to(tmp_path / "elsewhere" / "kept" / "mlflow_artifacts")
    assert artifact(store, moved).is_file()
    assert not (tmp_path / "runs").exists()


def test_a_copied_storage_leaves_the_original_alone(stored, tmp_path):
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy" / "demo")
    before = content(tmp_path / "runs")
    train(copy, 0, 5, first_epoch=3)
    copy.experiment.write_text(copy.experiment.read_text() + "\n# a remark\n")
    sync_in_a_process(copy.root, tmp_path)
    assert content(tmp_path / "runs") == before
    store, found = loss(copy)
    assert [step for step, _ in found] == [0, 1, 2, 3, 4]
    assert artifact(store, copy).read_text().endswith("# a remark\n")
    assert [step for step, _ in loss(stored)[1]] == [0, 1, 2]


def test_a_run_copied_within_its_storage_gets_runs_of_its_own(stored, tmp_path):
    shutil.copytree(stored.root, tmp_path / "runs" / "second")
    copy = RunFolder(tmp_path / "runs" / "second")
    assert run_page(MlflowRecord.read(copy.manifest)) is None
    train(copy, 0, 4, first_epoch=3)
    sync(copy.root)
    assert entries(copy)[0].run_id != entries(stored)[0].run_id
    assert [len(loss(run)[1]) for run in (stored, copy)] == [3, 4]


def test_a_run_moved_alone_gets_a_database_in_its_new_storage(stored, tmp_path, empty_database):
    (tmp_path / "alone").mkdir()
    shutil.copy(empty_database, tmp_path / "alone" / "mlflow.db")
    shutil.move(stored.root, tmp_path / "alone" / "demo")
    before = content(tmp_path / "runs")
    moved = RunFolder(tmp_path / "alone" / "demo")
    assert f"{tmp_path}/alone/mlflow.db" in sync(moved.root)
    store, found = loss(moved)
    assert len(found) == 3
    assert artifact(store, moved).is_relative_to(tmp_path / "alone" / "mlflow_artifacts")
    assert content(tmp_path / "runs") == before


def test_a_copy_of_a_run_in_a_shared_database_leaves_the_runs_of_the_original(run, make_syncer, store, tmp_path):
    syncer = make_syncer(folds=[0])
    train(run, 0, 2)
    assert syncer.finish()
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy" / "demo")
    train(copy, 0, 4, first_epoch=2)
    sync(copy.root)
    assert MlflowRecord.read(copy.manifest).tracking_uri == store.tracking_uri
    assert [len(rows(store, entries(each)[1][0].run_id, "loss")) for each in (run, copy)] == [2, 4]


def test_any_characters_can_be_in_the_path_of_a_storage(tmp_path, empty_database):
    name = "50 % off? #1 'a' \"b\" 100%25 é;x&y=z"
    root = tmp_path / "odd" / name / "demo"
    root.mkdir(parents=True)
    shutil.copy(empty_database, root.parent / "mlflow.db")
    run = RunFolder(root)
    run.experiment.write_text(str(EXPERIMENT).replace("None", "null"))
    train(run, 0, 2)
    sync(root)
    record = MlflowRecord.read(run.manifest)
    assert sqlite_path(record.tracking_uri) == root.parent / "mlflow.db"
    store, found = loss(run)
    assert found == [(0, 0.0), (1, 0.1)]
    assert artifact(store, run).is_relative_to(root.parent / "mlflow_artifacts")
    assert [file.name for file in (tmp_path / "odd").iterdir()] == [name]


@pytest.mark.parametrize("path", ["/data/runs/mlflow.db", "/a b/é'\"/m.db", "/50%/a?b#c/%20/m.db"])
def test_an_address_leads_back_to_its_file(path):
    assert sqlite_path(sqlite_address(Path(path))) == Path(path)
