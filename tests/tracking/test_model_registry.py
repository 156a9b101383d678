"""A finished run as a registered model: when, once, under which name, and what happens if MLflow refuses."""

import http.client
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from support.written_runs import EXPERIMENT, TAGS, entries, save_final_checkpoint, status, train
from uncseg.files import file_states, read_json
from uncseg.layout import RunFolder
from uncseg.method.checkpoints import WEIGHTS_KEYS
from uncseg.table_files import write_table
from uncseg.tracking.destination import Destination, open_store
from uncseg.tracking.record import MlflowRecord, RunDescription
from uncseg.tracking.spool import read_history
from uncseg.tracking.syncer import Syncer, sync_run

WHOLE = EXPERIMENT | {
    "dataset": {"name": "Small", "path": "cases", "phantoms": None},
    "split": {"folds": 2},
    "plan": {"configuration": "3d_fullres"},
    "evaluation": {"tile_step": 0.25, "mirroring": True, "last_epochs": 3},
}
EXPECTED_DICE = (0.6, 0.7, 0.8, 0.9)


def write_run(root, name, folds=(0, 1), evaluated=True, **tracking):
    """Write a run of two folds and four cases, trained to the end."""
    run = RunFolder(root / name)
    run.root.mkdir(parents=True)
    experiment = WHOLE | {"name": name, "tracking": {"experiment": "uncseg", "uri": None, **tracking}}
    run.experiment.write_text(yaml.safe_dump(experiment))
    for fold in folds:
        train(run, fold, 3)
        save_final_checkpoint(run, fold)
    (run.model / "plans.json").write_text("{}")
    if evaluated:
        evaluate(run)
    return run


def evaluate(run, ece=0.1):
    """Write the tables of four cases."""
    dice = dict.fromkeys(("dice_wt", "dice_tc", "dice_et", "dice_mean"), 0.9)
    cases = [
        {"case": str(n), "patient": str(n), "fold": n % 2, "expected_dice_wt": expected, **dice}
        for n, expected in enumerate(EXPECTED_DICE)
    ]
    write_table(pd.DataFrame(cases), run.tables, "per_case")
    figures = [("WT", "ece", ece), ("WT", "ace", np.nan), ("WT", "dice", 0.9), ("ET", "ece", 0.2)]
    write_table(pd.DataFrame(figures, columns=["region", "figure", "mean"]), run.tables, "scores_summary")


def finish(run, store, tags=TAGS, folds=(0, 1)):
    experiment = yaml.safe_load(run.experiment.read_text())
    description = RunDescription.from_experiment(experiment, run.root.name, tags)
    syncer = Syncer(run, Destination(store.tracking_uri, "uncseg"), description, folds)
    return syncer.finish(), syncer.stop()


def versions(store, name):
    found = store.client.search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def model_files(store, run_id):
    """Return the folder of the only logged model of a run."""
    (model,) = store.models_of(run_id)
    return Path(model.artifact_location.removeprefix("file://"))


def test_a_finished_run_is_a_registered_model(store, tmp_path):
    run = write_run(tmp_path, "whole")
    assert finish(run, store, TAGS | {"split_digest": "s", "git_commit": "c"}) == (True, 0)
    parent, folds = entries(run)
    (version,) = versions(store, "whole")
    assert version.run_id == parent.run_id
    (model,) = store.models_of(parent.run_id)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "whole", "version": 1}]
    assert {"run": "whole", "split_digest": "s", "git_commit": "c"}.items() <= version.tags.items()
    assert store.client.get_registered_model("whole").aliases == {"candidate": version.version}

    folder = model_files(store, parent.run_id)
    assert store.client.get_model_version_download_uri("whole", version.version) == folder.as_uri()
    for fold in (0, 1):
        content = torch.load(folder / f"fold_{fold}/checkpoint_final.pth", weights_only=True)
        assert sorted(content) == sorted(WEIGHTS_KEYS)  # no optimiser
        assert (content["network_weights"] == fold).all()
        outputs = store.client.get_run(folds[fold].run_id).outputs.model_outputs
        assert [output.model_id for output in outputs] == [parent.model_id]
    about = read_json(folder / "uncseg.json")
    assert about["review_below"] == pytest.approx(0.66)  # a fifth of the four lies below
    assert about["evaluation"] == {"tile_step": 0.25, "mirroring": True}
    assert about["calibration"] == {"WT": {"ece": 0.1, "ace": None}, "ET": {"ece": 0.2}}
    flavour = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    assert {name: value for name, value in flavour["python_function"].items() if name != "python_version"} == {
        "loader_module": "uncseg.tracking.pyfunc_model"
    }
    card = (folder / "README.md").read_text()
    for text in ("Not a medical device", "1 NCR", "0 t1n", "models:/whole@candidate", "| WT | 0.100 | – |"):
        assert text in card


def test_a_run_is_registered_once_and_again_when_its_figures_change(store, tmp_path):
    run = write_run(tmp_path, "again")
    finish(run, store)
    store.client.set_registered_model_alias("again", "champion", "1")
    finish(run, store)
    record = MlflowRecord.read(run.manifest)
    record.parent.files = {}  # as after a kill between MLflow's answer and the note
    record.write(run.manifest)
    finish(run, store)
    assert len(versions(store, "again")) == 1
    evaluate(run)  # the same tables, written again by newer code
    finish(run, store, TAGS | {"git_commit": "newer"})
    assert len(versions(store, "again")) == 1
    evaluate(run, ece=0.3)
    finish(run, store)
    aliases = store.client.get_registered_model("again").aliases
    assert {name: int(version) for name, version in aliases.items()} == {"champion": 1, "candidate": 2}


@pytest.mark.parametrize("last_first", [False, True])
def test_the_candidate_belongs_to_the_run_that_ended_last_in_any_order(store, tmp_path, last_first):
    model = f"shared.{last_first}"
    runs = [write_run(tmp_path, f"{name}_{last_first}", model=model) for name in ("early", "late")]
    for run in runs[::-1] if last_first else runs:
        finish(run, store)
    finish(runs[0], store)
    evaluate(runs[0], ece=0.4)  # a new version of the run that ended first
    finish(runs[0], store)
    assert len(versions(store, model)) == 3
    candidate = store.client.get_model_version_by_alias(model, "candidate")
    assert candidate.tags["run"] == f"late_{last_first}"
    ended = max(read_history(runs[1].spool, fold).last_ms for fold in (0, 1))
    assert candidate.tags["uncseg.ended_ms"] == str(ended)


def test_an_unfinished_run_has_one_model_per_finished_fold(store, tmp_path):
    run = write_run(tmp_path, "part", folds=(1,), evaluated=False)
    finish(run, store, folds=(0, 1))
    parent, folds = entries(run)
    assert not store.models_of(parent.run_id)
    content = torch.load(model_files(store, folds[1].run_id) / "fold_1/checkpoint_final.pth", weights_only=True)
    assert sorted(content) == sorted(WEIGHTS_KEYS)
    train(run, 0, 3)
    save_final_checkpoint(run, 0)
    evaluate(run)
    finish(run, store)
    parent, folds = entries(run)
    assert (model_files(store, parent.run_id) / "fold_1").is_dir()
    assert not store.models_of(folds[1].run_id)  # the same weights are not stored twice
    assert len(versions(store, "part")) == 1


def test_trials_of_a_sweep_store_no_weights(store, tmp_path):
    sweep = store.create_run("sweep", {})
    run = write_run(tmp_path, "trial")
    assert finish(run, store, TAGS | {"mlflow.parentRunId": sweep}) == (True, 0)
    parent, folds = entries(run)
    assert not any(store.models_of(entry.run_id) for entry in (parent, *folds.values()))
    assert not versions(store, "trial")


def test_an_empty_database_gets_the_model_again_under_its_own_name(store, tmp_path, new_database):
    run = write_run(tmp_path, "moved", model="glioma.v1")
    finish(run, store)
    uri = new_database("new")
    assert sync_run(run.root, uri) == 0
    fresh = open_store(uri, "uncseg")
    for where in (store, fresh):
        assert [version.version for version in versions(where, "glioma.v1")] == [1]
    assert model_files(fresh, entries(run)[0].run_id).is_relative_to(tmp_path / "new")


def test_a_store_that_takes_no_files_is_named_and_the_run_is_left_alone(new_database, tmp_path, caplog):
    store = open_store(new_database("full"), "uncseg")
    run = write_run(tmp_path, "kept")
    location = Path(store.client.get_experiment(store.experiment_id).artifact_location.removeprefix("file://"))
    models = location / "models"
    location.mkdir(parents=True, exist_ok=True)
    models.write_text("a file where a folder should be")
    files = [run.final_checkpoint(0), run.final_checkpoint(1), *run.tables.iterdir()]
    before = file_states(files)
    caplog.set_level(logging.WARNING, "uncseg")
    stored, left = finish(run, store)
    assert (stored, left) == (False, 1)
    (warning,) = (record for record in caplog.records if record.name.startswith("uncseg"))
    assert "did not store the model of kept (2 folds)" in warning.getMessage()
    assert f"uncseg sync {run.root}" in warning.getMessage()
    assert file_states(files) == before
    parent, folds = entries(run)
    assert [status(store, entry) for entry in (parent, *folds.values())] == ["FINISHED"] * 3
    models.unlink()
    assert sync_run(run.root) == 0
    assert len(versions(store, "kept")) == 1
    assert (model_files(store, parent.run_id) / "fold_1/checkpoint_final.pth").is_file()


@pytest.fixture
def without_registry(server_uri):
    """Address of a gate before a real server that refuses to write to the registry, and the requests it refused."""
    turned_away = []

    class Gate(BaseHTTPRequestHandler):
        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command != "GET" and ("registered-models" in self.path or "model-versions" in self.path):
                turned_away.append(self.path)
                return self.answer(403, b"forbidden", {})
            connection = http.client.HTTPConnection(urlsplit(server_uri).netloc)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return self.answer(answer.status, answer.read(), dict(answer.getheaders()))

        def answer(self, code, body, headers):
            self.send_response(code)
            self.send_header("Content-Type", headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as gate:
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{gate.server_port}", turned_away
        gate.shutdown()


def test_a_server_that_refuses_registration_still_stores_the_model(without_registry, tmp_path, caplog):
    uri, turned_away = without_registry
    store = open_store(uri, "uncseg")
    run = write_run(tmp_path, "barred")
    caplog.set_level(logging.WARNING, "uncseg")
    assert finish(run, store) == (True, 0)
    assert turned_away
    (warning,) = (record for record in caplog.records if record.name.startswith("uncseg"))
    assert "stored, and not registered as barred" in warning.getMessage()
    parent, _ = entries(run)
    assert status(store, parent) == "FINISHED"
    assert [model.model_id for model in store.models_of(parent.run_id)] == [parent.model_id]
