"""Everything that an MLflow holds of an experiment, without the ids that it chose."""

import hashlib
import re
import tempfile
from pathlib import Path

from mlflow.entities import ViewType


def everything(store):
    """Return runs, logged models and registered models by name, with the digests of their files."""
    client = store.client
    runs = client.search_runs([store.experiment_id], "", ViewType.ACTIVE_ONLY, max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    models = client.search_logged_models([store.experiment_id])
    names |= {model.model_id: f"model {model.name}" for model in models} | {store.experiment_id: "EXPERIMENT"}
    assert len(set(names.values())) == len(names)

    def plain(text):
        text = re.sub(rf"#/experiments/{store.experiment_id}/", "#/experiments/EXPERIMENT/", text)
        for name_of_mlflow, name in names.items():
            text = text.replace(name_of_mlflow, name) if len(name_of_mlflow) > 8 else text
        return text

    found = {run.info.run_name: _run(client, run, plain) for run in runs}
    found |= {f"model {model.name}": _model(client, model, plain) for model in models}
    for registered in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{registered.name}'")
        described = [
            (_named(v.source, names), names[v.run_id], plain(v.description or ""), _plain(v.tags, plain))
            for v in versions
        ]
        found[f"registered {registered.name}"] = ({alias: int(v) for alias, v in registered.aliases.items()}, described)
    return found


def _run(client, run, plain):
    info = run.info
    metrics = {
        key: sorted((row.step, row.timestamp, row.value) for row in client.get_metric_history(info.run_id, key))
        for key in run.data.metrics
    }
    return {
        "status": (info.status, info.start_time, info.end_time),
        "params": run.data.params,
        "tags": _plain(run.data.tags, plain),
        "metrics": metrics,
        "files": _files(client, info.run_id),
        "datasets": [(i.dataset.name, i.dataset.digest, i.dataset.source) for i in run.inputs.dataset_inputs],
        "models": [(plain(out.model_id), out.step) for out in run.outputs.model_outputs] if run.outputs else [],
    }


def _model(client, model, plain):
    metrics = sorted((row.key, row.step, row.timestamp, row.value) for row in model.metrics or [])
    files = {path: digest for path, digest in _model_files(client, model.model_id).items() if path != "MLmodel"}
    tags = _plain(
        {tag: text for tag, text in model.tags.items() if tag != "mlflow.modelVersions"}, plain
    )  # servers' own
    return (str(model.status), plain(model.source_run_id), tags, model.params, metrics, files)


def _plain(tags, plain):
    return {name: plain(value) for name, value in tags.items()}


def _files(client, run_id):
    with tempfile.TemporaryDirectory() as folder:
        return _digests(Path(client.download_artifacts(run_id, "", folder)))


def _model_files(client, model_id):
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _digests(Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=folder)))
    finally:
        mlflow.set_tracking_uri(before)


def _digests(folder):
    """Return the digests of the files in a folder; MLflow chooses a new name for each image."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", path.relative_to(folder).as_posix())
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def _named(source, names):
    """Return the model that a version points to: by its id with a server, by its folder without one."""
    (name,) = {
        name for name_of_mlflow, name in names.items() if name_of_mlflow.startswith("m-") and name_of_mlflow in source
    }
    return name
