import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException

from uncseg.config.experiment import Experiment
from uncseg.config.fields import flatten
from uncseg.config.sections import Dataset, Plan
from uncseg.config.training_sections import Loss
from uncseg.errors import ProblemsFound
from uncseg.tracking.destination import open_store


def test_params_are_flat_and_numbers_stay_numbers():
    experiment = Experiment(
        name="demo",
        dataset=Dataset(path=Path("data")),
        plan=Plan(patch_size=(48, 48, 32)),
        loss=Loss(unc_weight=0.4, weight_ce=(0.2, 1, 0.2, 1)),
    )
    params = flatten(experiment.model_dump(mode="json"))
    weights = {name: float(params[f"loss.weight_ce_{name}"]) for name in ("background", "ncr", "ed", "et")}
    assert weights == {"background": 0.2, "ncr": 1, "ed": 0.2, "et": 1}
    assert "loss.weight_ce" not in params
    assert float(params["loss.unc_weight"]) == 0.4
    assert params["plan.patch_size"] == "48, 48, 32"
    assert params["plan.batch_size"] == "null"
    assert params["model.uncertainty"] == "true"
    assert params["training.epochs"] == "500"
    assert params["name"] == "demo"


def test_params_can_be_searched(store):
    for weight in (0.1, 0.7):
        run_id = store.create_run(f"weight {weight}", {})
        store.log_params(run_id, flatten({"loss": {"unc_weight": weight, "weight_ce": [0.2, 1, 0.25, 1]}}))
    found = store.client.search_runs(
        [store.experiment_id], "params.`loss.unc_weight` = '0.7' and params.`loss.weight_ce_ed` = '0.25'"
    )
    assert [run.info.run_id for run in found] == [run_id]


def test_opening_again_finds_the_same_experiment(store, tmp_path):
    again = open_store(store.tracking_uri, "uncseg", tmp_path / "elsewhere")
    assert again.experiment_id == store.experiment_id
    location = store.client.get_experiment(store.experiment_id).artifact_location
    assert location == (Path(store.tracking_uri.removeprefix("sqlite:///")).parent / "mlflow_artifacts").as_uri()


def test_processes_may_open_a_new_database_at_once(tmp_path):
    program = (
        "import sys; from uncseg.tracking.destination import open_store; print(open_store(*sys.argv[1:]).experiment_id)"
    )
    arguments = [sys.executable, "-c", program, f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", "e"]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(answers)) == 1


def test_a_server_that_is_down_is_named_by_its_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ProblemsFound) as caught:
        open_store(uri, "uncseg")
    assert caught.value.problems[0].where == "tracking.uri"
    assert uri in caught.value.problems[0].found
    assert caught.value.exit_code == 1


def test_a_deleted_experiment_is_refused(store):
    other = open_store(store.tracking_uri, "thrown away")
    store.client.delete_experiment(other.experiment_id)
    with pytest.raises(ProblemsFound, match="restore"):
        open_store(store.tracking_uri, "thrown away")


def test_metrics_beyond_the_limit_of_one_call_are_all_logged(store):
    run_id = store.create_run("many", {})
    rows = [Metric(f"m{i}", float(step), 1000 + step, step) for step in range(3) for i in range(700)]
    store.log_metrics(run_id, rows)
    store.log_metrics(run_id, rows)
    history = store.client.get_metric_history(run_id, "m699")
    assert [(row.step, row.value, row.timestamp) for row in history] == [(0, 0, 1000), (1, 1, 1001), (2, 2, 1002)]


def test_a_deleted_run_counts_as_absent(store):
    run_id = store.create_run("short-lived", {"key": "short-lived"})
    assert store.has_run(run_id)
    assert store.find_run("key", "short-lived") == run_id
    store.delete_run(run_id)
    store.delete_run(run_id)
    assert not store.has_run(run_id)
    assert store.find_run("key", "short-lived") is None
    assert not store.has_run("0" * 32)


@pytest.fixture
def parts(tmp_path):
    """Two folders whose files make up a model."""
    for number, name in enumerate(("plans.json", "fold_0/checkpoint_final.pth")):
        file = tmp_path / f"part_{number}" / name
        file.parent.mkdir(parents=True)
        file.write_text(name)
    return [tmp_path / "part_0", tmp_path / "part_1"]


def test_a_model_has_metrics_at_their_step(store, parts):
    run_id = store.create_run("child", {})
    store.log_metrics(run_id, [Metric("val/dice_a", 0.9, 1234, 7)])
    arguments = (
        run_id,
        "demo-fold_0",
        "abc",
        lambda _: (part for part in parts),
        [Metric("val/dice_a", 0.9, 1234, 7)],
        7,
        {"fold": "0"},
    )
    model_id = store.log_model(*arguments).model_id
    assert store.log_model(*arguments).model_id == model_id

    found = store.client.search_logged_models([store.experiment_id], "metrics.`val/dice_a` > 0.8")
    assert [model.model_id for model in found] == [model_id]
    assert found[0].status == LoggedModelStatus.READY
    assert found[0].source_run_id == run_id
    assert found[0].params == {"fold": "0"}
    assert [(metric.key, metric.value, metric.step) for metric in found[0].metrics] == [("val/dice_a", 0.9, 7)]
    assert len(store.client.get_metric_history(run_id, "val/dice_a")) == 1
    assert [output.model_id for output in store.client.get_run(run_id).outputs.model_outputs] == [model_id]
    folder = Path(found[0].artifact_location.removeprefix("file://"))
    assert (folder / "fold_0" / "checkpoint_final.pth").read_text() == "fold_0/checkpoint_final.pth"
    (folder / "plans.json").unlink()
    store.log_model(*arguments)
    assert not (folder / "plans.json").exists()  # nothing was uploaded a second time

    store.delete_run(run_id)
    assert not store.client.search_logged_models([store.experiment_id], "metrics.`val/dice_a` > 0.8")


def test_a_model_whose_upload_broke_off_is_completed(store, parts):
    run_id = store.create_run("broken off", {})
    location = Path(store.client.get_experiment(store.experiment_id).artifact_location.removeprefix("file://"))
    models = location / "models"
    models.mkdir(parents=True, exist_ok=True)
    hidden = location / "hidden"

    def out_of_order(_model):
        yield parts[0]
        models.rename(hidden)
        models.write_text("a file where a folder should be")
        yield parts[1]

    others = ([Metric("val/dice_b", 0.9, 1234, 7)], 7, {})
    with pytest.raises((OSError, MlflowException)):
        store.log_model(run_id, "demo", "abc", out_of_order, *others)
    models.unlink()
    hidden.rename(models)
    model = store.log_model(run_id, "demo", "abc", lambda _: (part for part in parts), *others)
    (found,) = store.client.search_logged_models([store.experiment_id], f"source_run_id = '{run_id}'")
    assert (found.model_id, found.status) == (model.model_id, LoggedModelStatus.READY)
    other = store.log_model(run_id, "demo", "abd", lambda _: (part for part in parts), *others)
    assert other.model_id != model.model_id


def test_a_registered_model_outlives_its_run(store, parts):
    run_id = store.create_run("void", {})
    model = store.log_model(run_id, "kept", "abc", lambda _: (part for part in parts), [], 0, {})
    store.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": '[{"name": "kept", "version": 1}]'})
    store.delete_run(run_id)
    assert [kept.model_id for kept in store.models_of(run_id)] == [model.model_id]
