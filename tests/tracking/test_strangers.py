"""Folders of runs from someone else: no file from outside of them is uploaded, and nothing goes where they say."""

import contextlib
import http.server
import json
import os
import pty
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
from mlflow.utils import credentials

from support.commands import uncseg
from support.written_runs import entries, save_final_checkpoint, train
from uncseg.console import console
from uncseg.errors import ProblemsFound
from uncseg.files import read_json
from uncseg.layout import RunFolder
from uncseg.ownership import make_own, mark_as_own
from uncseg.table_files import write_table
from uncseg.tracking.destination import open_store
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.syncer import sync_run

SECRET = "not-for-others"
PASSWORD = "mlflow_tracking_password"


@pytest.fixture(autouse=True)
def _of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(console, "width", 1000)  # no cell wraps
    for name in ("MLFLOW_TRACKING_URI", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listener():
    """A server that notes what it is asked, with which credentials, and answers that there is nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.asked, server.uri = asked, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def given(tmp_path, make_syncer, run):
    """A run that someone else trained, pushed to a database of theirs, and passed on."""
    syncer = make_syncer(folds=(0,))
    train(run, 0, 2)
    assert syncer.push_once()
    update_manifest(run.manifest, mlflow=read_json(run.manifest)["mlflow"] | {"address_code": "0" * 64})
    return RunFolder(run.root.rename(tmp_path / "given"))


def downloaded(store, run_id, folder):
    """Return the content of each artifact of an MLflow run by its path."""
    folder.mkdir()
    store.client.download_artifacts(run_id, "", str(folder))
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def naming(run, address):
    update_manifest(run.manifest, mlflow=read_json(run.manifest)["mlflow"] | {"tracking_uri": address})


@pytest.mark.parametrize(("command", "place"), [("sync", "manifest"), ("sync", "experiment"), ("ui", "manifest")])
def test_an_address_in_a_folder_of_others_is_not_asked(given, listener, monkeypatch, command, place):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    if place == "manifest":
        naming(given, listener.uri)
    else:
        given.manifest.unlink()
        given.experiment.write_text(json.dumps({"name": "demo", "tracking": {"uri": listener.uri}}))
    printed = uncseg(command, given.root, code=2)
    assert listener.uri in printed
    assert "--tracking-uri" in printed
    assert SECRET not in printed
    assert not listener.asked


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_on_a_terminal_the_user_is_asked_and_no_credentials_are_sent(given, listener, monkeypatch, tmp_path, answer):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    netrc, home = tmp_path / "netrc", tmp_path / "home"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    (home / ".mlflow").mkdir(parents=True)
    (home / ".mlflow" / "credentials").write_text(f"[mlflow]\nmlflow_tracking_username = me\n{PASSWORD} = {SECRET}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(credentials, "read_mlflow_creds", credentials.read_mlflow_creds)  # what is set is set back
    naming(given, listener.uri)
    user, terminal = pty.openpty()
    with os.fdopen(terminal) as keys, os.fdopen(os.dup(terminal), "w") as screen:
        os.write(user, f"{answer}\n".encode())
        monkeypatch.setattr(sys, "stdin", keys)
        monkeypatch.setattr(sys, "stderr", screen)
        with pytest.raises(ProblemsFound) as caught:  # the listener is no MLflow
            sync_run(given.root)
        os.set_blocking(user, False)
        asked = ""
        with contextlib.suppress(BlockingIOError):  # everything is there
            while True:
                asked += os.read(user, 10_000).decode()
    os.close(user)
    assert listener.uri in asked
    assert "[y/N]" in asked
    if answer == "y":
        assert caught.value.title == "MLflow cannot be reached."
        assert listener.asked
        assert not [credentials for _, credentials in listener.asked if credentials]
        assert not read_json(given.manifest)["mlflow"].get("address_code", "").strip("0")  # nor is it known from now on
    else:
        assert caught.value.title == "MLflow is not asked."
        assert not listener.asked


def test_an_address_that_the_user_gives_is_asked_with_the_users_credentials(given, listener, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    naming(given, listener.uri)
    uncseg("sync", given.root, "--tracking-uri", listener.uri, code=1)
    assert listener.asked
    assert all(credentials and credentials.startswith("Basic ") for _, credentials in listener.asked)
    listener.asked.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", listener.uri)
    uncseg("sync", given.root, code=1)
    assert listener.asked


def test_an_address_that_the_user_gave_once_is_kept_when_the_run_moves(run, make_syncer, tmp_path, new_database):
    syncer = make_syncer(folds=(0,), uri=new_database("elsewhere"))
    train(run, 0, 2)
    assert syncer.push_once()
    moved = RunFolder(run.root.rename(tmp_path / "moved"))
    assert "elsewhere" in uncseg("sync", moved.root)
    naming(moved, new_database("another"))  # not with the code of this one
    assert "another" in uncseg("sync", moved.root, code=2)


def test_an_experiment_file_counts_in_a_folder_of_ones_own(tmp_path, given, new_database):
    """Its run may never have reached MLflow. A manifest that was changed by hand does not count anywhere."""
    own = RunFolder(tmp_path / "own")
    make_own(own.root)
    shutil.copytree(given.root, own.root, dirs_exist_ok=True)
    naming(own, new_database("elsewhere"))
    assert "elsewhere" in uncseg("sync", own.root, code=2)
    own.manifest.unlink()
    own.experiment.write_text(json.dumps({"name": "demo", "tracking": {"uri": new_database("elsewhere")}}))
    assert "elsewhere" in uncseg("sync", own.root)
    moved = RunFolder(own.root.rename(tmp_path / "moved"))
    moved.manifest.unlink()
    assert "elsewhere" in uncseg("sync", moved.root, code=2)


def test_a_database_beside_a_run_of_others_stores_files_beside_itself_alone(given, new_database, tmp_path):
    """The database of a storage says where files go: here to a server, or over a folder of the user."""
    database = shutil.copy(new_database("theirs").removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    own = tmp_path.parent / f"{tmp_path.name}_home"
    for place in ("http://127.0.0.1:9/files", "s3://bucket/files", own.as_uri(), f"file://{tmp_path}/../{own.name}"):
        given.manifest.unlink(missing_ok=True)
        name = f"to {place}"
        open_store(f"sqlite:///{database}", "uncseg").client.create_experiment(name, place)
        given.experiment.write_text(json.dumps({"name": "demo", "tracking": {"experiment": name}}))
        assert "files that go to" in uncseg("sync", given.root, code=2)
        assert not own.exists()
    given.experiment.write_text(json.dumps({"name": "demo"}))
    assert "MLflow holds everything" in uncseg("sync", given.root)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = 'http://127.0.0.1:9/files'")
    assert "files that go to http://127.0.0.1:9/files" in uncseg("sync", given.root, code=2)


def test_links_out_of_a_run_are_not_uploaded(run, store, make_syncer, tmp_path, caplog):
    """Nor what lies below a linked folder, a file that is none, and the weights of another model."""
    make_syncer(folds=(0,))
    train(run, 0, 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("secret.csv", "epoch.png", "report.html", "plans.json"):
        (outside / name).write_text(SECRET)
    write_table(pd.DataFrame({"a": [1]}), run.tables, "mine")
    run.progress.mkdir()
    for link, target in {
        "tables/secret.csv": "secret.csv",
        "tables/deeper": "",
        "figures": "",
        "report.html": "report.html",
        "progress/fold_0_epoch_0000.png": "epoch.png",
        "folds/D/T__P__C/plans.json": "plans.json",
    }.items():
        (run.root / link).parent.mkdir(parents=True, exist_ok=True)
        (run.root / link).symlink_to(outside / target)
    os.mkfifo(run.tables / "pipe.csv")
    save_final_checkpoint(run, 0)
    checkpoint = run.final_checkpoint(0)
    checkpoint.rename(outside / "weights.pth")
    checkpoint.symlink_to(outside / "weights.pth")
    (run.tables / "inside.csv").symlink_to(run.tables / "mine.csv")
    assert "MLflow holds everything" in uncseg("sync", run.root, "--tracking-uri", store.tracking_uri)
    parent, folds = entries(run)
    kept = downloaded(store, parent.run_id, tmp_path / "parent") | downloaded(store, folds[0].run_id, tmp_path / "fold")
    assert {"experiment.yaml", "tables/mine.csv", "tables/mine.parquet", "tables/inside.csv"} < set(kept)
    assert not [name for name, content in kept.items() if SECRET.encode() in content]
    assert not store.models_of(folds[0].run_id)
    for name in ("tables/secret.csv", "report.html", "figures/secret.csv"):
        assert f"{run.root / name} leads out of {run.root}" in caplog.text


@pytest.mark.parametrize("own", [False, True])
def test_hard_links_out_of_a_run_of_others_are_not_uploaded(run, store, make_syncer, tmp_path, caplog, own):
    """Those of a run of one's own are: a backup may hold its files under other names."""
    make_syncer(folds=(0,))
    if own:
        mark_as_own(run.root)
    train(run, 0, 2)
    save_final_checkpoint(run, 0)
    write_table(pd.DataFrame({"a": [1]}), run.tables, "mine")
    (run.tables / "second_name.csv").hardlink_to(run.tables / "mine.csv")
    (tmp_path / "outside").write_text(SECRET)
    for name in ("first.csv", "second.csv"):  # of three names two are in the run
        (run.tables / name).hardlink_to(tmp_path / "outside")
    (tmp_path / "backup").hardlink_to(run.final_checkpoint(0))
    assert "MLflow holds everything" in uncseg("sync", run.root, "--tracking-uri", store.tracking_uri)
    parent, folds = entries(run)
    kept = downloaded(store, parent.run_id, tmp_path / "kept")
    assert {"tables/mine.csv", "tables/second_name.csv"} <= set(kept)
    assert ({"tables/first.csv", "tables/second.csv"} <= set(kept)) == own
    assert bool([name for name, content in kept.items() if SECRET.encode() in content]) == own
    assert bool(store.models_of(folds[0].run_id)) == own
    assert (f"{run.tables / 'first.csv'} leads out of {run.root}" in caplog.text) != own


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", ["experiment.yaml", "manifest.json", "spool/fold_0.jsonl", "tables/per_case.parquet"])
def test_a_run_whose_own_records_are_links_out_of_it_is_refused(run, store, make_syncer, tmp_path, name, link):
    make_syncer(folds=(0,))
    train(run, 0, 2)
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (run.root / name).unlink(missing_ok=True)
    (run.root / name).parent.mkdir(exist_ok=True)
    link(run.root / name, outside)
    printed = uncseg("sync", run.root, "--tracking-uri", store.tracking_uri, code=2)
    assert f"{run.root / name}" in printed
    assert "link out of the run" in printed
