"""The model on this disk is the one that MLflow has now, whichever was here before."""

import sys

import pytest
from mlflow import MlflowClient

from support.commands import run_process
from uncseg.errors import ProblemsFound
from uncseg.files import write_json
from uncseg.runs.model_sources import find_model
from uncseg.tracking.destination import open_store


def write_model(folder, text):
    """Write a model folder that holds no folds; a file ``text`` tells it from others."""
    write_json(folder / "plans.json", {"configurations": {"3d_fullres": {"architecture": {}}}})
    write_json(folder / "dataset.json", {"labels": {}})
    (folder / "text").write_text(text)
    return str(folder)


@pytest.fixture
def register(tmp_path, new_database):
    """Register a model as a new version of "glioma" in a database; (address of the database, two URIs of the model)."""

    def write(database, text):
        store = open_store(new_database(database), "uncseg")
        run_id = store.create_run(text, {})
        store.client.log_artifacts(run_id, write_model(tmp_path / "model", text), "model")
        if not store.client.search_registered_models("name = 'glioma'"):
            store.client.create_registered_model("glioma")
        source = f"{store.client.get_run(run_id).info.artifact_uri}/model"
        version = store.client.create_model_version("glioma", source, run_id=run_id)
        store.client.set_registered_model_alias("glioma", "candidate", str(version.version))
        return store.tracking_uri, f"models:/glioma/{version.version}", f"runs:/{run_id}/model"

    return write


def texts(uri, output):
    """Return the texts of the models newly downloaded into OUTPUT, which are then refused: they have no folds."""
    before = set(output.glob(".model-*"))
    with pytest.raises(ProblemsFound, match="fold") as caught:
        find_model(uri, output)
    assert caught.value.problems[0].found == "no finished fold"
    return sorted(next(path.rglob("text")).read_text() for path in set(output.glob(".model-*")) - before)


def test_the_same_name_elsewhere_is_another_model(register, tmp_path, monkeypatch):
    output = tmp_path / "out"
    (first, uri, _), (second, same_uri, _) = register("one", "first"), register("two", "second")
    assert uri == same_uri == "models:/glioma/1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", first)
    assert texts(uri, output) == ["first"]
    assert texts("models:/glioma@candidate", output) == texts("models:/glioma/latest", output) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", second)
    assert texts(uri, output) == ["second"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", first)
    assert texts(uri, output) == []


def test_a_version_registered_again_is_another_model(register, tmp_path, monkeypatch):
    output = tmp_path / "out"
    address, uri, _ = register("one", "first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert texts(uri, output) == ["first"]
    MlflowClient(address).delete_registered_model("glioma")
    for gone in (uri, "models:/glioma@candidate", "models:/glioma/latest"):
        with pytest.raises(ProblemsFound, match="There is no such model"):
            find_model(gone, output)
    assert register("one", "again")[1] == uri
    assert texts(uri, output) == ["again"]


def test_a_deleted_run_has_no_model(register, tmp_path, monkeypatch):
    output = tmp_path / "out"
    address, _, uri = register("one", "first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert texts(uri, output) == ["first"]
    MlflowClient(address).delete_run(uri.split("/")[1])
    with pytest.raises(ProblemsFound, match="was deleted"):
        find_model(uri, output)


def test_a_deleted_logged_model_is_refused(tmp_path, new_database, monkeypatch):
    store = open_store(new_database("one"), "uncseg")
    model = store.client.create_logged_model(store.experiment_id, name="alone")
    store.client.log_model_artifacts(model.model_id, write_model(tmp_path / "model", "first"))
    store.client.finalize_logged_model(model.model_id, "READY")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    uri, output = f"models:/{model.model_id}", tmp_path / "out"
    assert texts(uri, output) == ["first"]
    store.client.delete_logged_model(model.model_id)
    with pytest.raises(ProblemsFound, match="There is no such model"):
        find_model(uri, output)


def test_a_password_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:se%2Fcret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ProblemsFound) as caught:
        find_model("models:/glioma/1", tmp_path / "out")
    assert "127.0.0.1:9" in caught.value.problems[0].expected
    assert caught.value.__cause__ is None
    for secret in ("ada", "cret"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(("asked", "shown"), [(None, False), ("true", True)])
def test_progress_bars_appear_only_on_request(server_uri, tmp_path, asked, shown):
    """A download from a server shows none here, unless the user has set MLflow's own variable."""
    store = open_store(server_uri, "uncseg")
    run_id = store.create_run("run", {})
    store.client.log_artifacts(run_id, write_model(tmp_path / "model", "first"), "model")
    program = f"""
import os, pathlib
from uncseg.tracking.stored_models import download
os.environ["MLFLOW_TRACKING_URI"] = {server_uri!r}
name, asked = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", {asked!r}
os.environ.pop(name, None)
os.environ.update({{name: asked}} if asked else {{}})
download("runs:/{run_id}/model", pathlib.Path({str(tmp_path / "out")!r}))
assert os.environ.get(name) == asked
"""
    output = run_process(sys.executable, "-c", program, folder=tmp_path)
    assert ("Downloading artifacts" in output) == shown
