"""Store: the few things we ask of MLflow, each with an explicit run id.

    store = open_store("sqlite:////data/runs/mlflow.db", "uncseg")
    run_id = store.create_run("demo", {"mlflow.parentRunId": parent})

MLflow's fluent functions keep an "active run" per thread, and the syncer has a thread of its own: nothing here uses
them. Every function may raise ``MlflowException`` where MLflow cannot be reached; ``is_gone`` tells that apart from a
run that no longer exists.
"""

import json
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from PIL import Image

from uncseg.config import LABEL_NAMES, Experiment
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import file_lock
from uncseg.tracking.versions import database_problem, server_problem

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
# without it the UI takes the experiment for one of language models, and hides the charts
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
CONTENT_TAG = "uncseg.sha256"
VERSIONS_TAG = "mlflow.modelVersions"  # of a logged model that is registered
METRICS_PER_CALL = 1000  # MLflow's own limit on log_batch
_upload_lock = threading.Lock()
TERMINAL = ("FINISHED", "FAILED", "KILLED")


class NotStored(ProblemsFound):
    """What MLflow, or the place where it keeps files, did not take."""


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Say what was not stored where storing it fails.

    Raises:
        NotStored: with the reason.
    """
    try:
        yield
    except Exception as error:  # MLflow's own, the disk's, those of each object store's client, a damaged checkpoint
        reason = (str(error) or repr(error)).strip().splitlines()[0]
        if isinstance(error, ProblemsFound):
            reason = f"{error.problems[0].where}: {error.problems[0].found}"
        problem = Problem(what, reason, "a place for it", "free some, or mend the store; then: uncseg sync RUN")
        raise NotStored("MLflow did not take everything.", [problem], exit_code=1) from error


def is_gone(error: MlflowException) -> bool:
    """Whether MLflow answered that the thing asked for does not exist."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST"


def flat_params(experiment: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """An experiment's fields as MLflow params: dotted names, values as YAML would write them.

    Class weights get a param each (``loss.weight_ce_background``, ``_ncr``, ``_ed``, ``_et``), because parallel
    coordinates need numbers; other lists are joined by ", ".
    """
    params: dict[str, str] = {}
    for key, value in experiment.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            params |= flat_params(value, f"{name}.")
        elif key == "weight_ce" and isinstance(value, (list, tuple)):
            params |= {f"{name}_{label}": _text(weight) for label, weight in zip(LABEL_NAMES, value, strict=True)}
        elif isinstance(value, (list, tuple)):
            params[name] = ", ".join(_text(item) for item in value)
        else:
            params[name] = _text(value)
    return params


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Store:
    """An MLflow experiment, opened by ``open_store``."""

    client: MlflowClient
    experiment_id: str
    tracking_uri: str

    def create_run(self, name: str, tags: Mapping[str, str], start_ms: int | None = None) -> str:
        """Create a run (status RUNNING) and return its id. ``start_ms``: Unix time, milliseconds; None: now."""
        run = self.client.create_run(self.experiment_id, start_time=start_ms, tags=dict(tags), run_name=name)
        return run.info.run_id

    def find_run(self, tag: str, value: str) -> str | None:
        """Id of the run, not deleted, whose ``tag`` has this value; None if there is none."""
        query = f"tags.`{tag}` = '{value}'"
        runs = self.client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY, max_results=1)
        return runs[0].info.run_id if runs else None

    def has_run(self, run_id: str) -> bool:
        """Whether the run exists and was not deleted."""
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if is_gone(error):
                return False
            raise

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log params; the same ones again change nothing."""
        self.client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()], synchronous=True)

    def log_dataset(self, run_id: str, name: str, digest: str, path: str) -> None:
        """Name the dataset of a run; the same one again changes nothing.

        Args:
            digest: at most 36 characters.
            path: where it lies.
        """
        dataset = Dataset(name, digest, "local", json.dumps({"uri": path}))
        self.client.log_inputs(run_id, [DatasetInput(dataset)])

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Log metrics, at most 1000 a call. A row that is there already (name, value, time, step) stays one row.

        Metrics with a ``model_id`` are logged to that logged model as well.
        """
        for start in range(0, len(metrics), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL], synchronous=True)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, over those of the same name."""
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()], synchronous=True)

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Set RUNNING, SCHEDULED, FINISHED, FAILED or KILLED; the last three end the run (at ``end_ms``, else now)."""
        if status in TERMINAL:
            self.client.set_terminated(run_id, status, end_ms)
        else:
            self.client.update_run(run_id, status)

    def delete_run(self, run_id: str) -> None:
        """Put a run into MLflow's bin, from where it can be restored, and its logged models that nobody registered.

        A run that does not exist, or was deleted before, is fine.
        """
        self.delete_models(run_id)
        if self.has_run(run_id):
            self.client.delete_run(run_id)

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact, into an artifact folder or the root; an artifact of that name is replaced."""
        with patient_uploads():
            self.client.log_artifact(run_id, str(path), folder)

    def log_image(self, run_id: str, path: Path, key: str, step: int, time_ms: int) -> None:
        """Log a PNG of an epoch; the UI shows those of one key side by side, or by a slider over ``step``."""
        with Image.open(path) as image, patient_uploads():
            self.client.log_image(run_id, image, key=key, step=step, timestamp=time_ms, synchronous=True)

    def log_model(
        self,
        run_id: str,
        name: str,
        content: str,
        folders: Callable[[LoggedModel], Generator[Path, None, None]],
        metrics: Mapping[str, float],
        step: int,
        params: Mapping[str, str],
        time_ms: int,
    ) -> LoggedModel:
        """Log a model of a run; the same content is logged once, whoever asks, and completed where a kill broke it off.

        Args:
            run_id: the run that made the model.
            name: name of the logged model.
            content: digest of what it holds.
            folders: gives, for the model's entry in MLflow, folders whose files it consists of; each is asked for when
                the one before has been stored, so that they need not all lie on a disk at once.
            metrics: finite values, tied to model and run.
            step: epoch of the metrics. time_ms: their Unix time in milliseconds; with the time under which the run
                already has these metrics, the run gets no second row.
            params: shown beside the model, searchable.
        """
        model = next((one for one in self.models_of(run_id) if one.tags.get(CONTENT_TAG) == content), None)
        if model is not None and model.status == LoggedModelStatus.READY:
            return model
        if model is None:
            tags = {CONTENT_TAG: content}
            model = self.client.create_logged_model(
                self.experiment_id, name, source_run_id=run_id, tags=tags, params=dict(params), model_type="nnU-Net"
            )
        with closing(folders(model)) as parts:
            for folder in parts:
                with patient_uploads():
                    self.client.log_model_artifacts(model.model_id, str(folder))
        rows = [Metric(key, value, time_ms, step, model_id=model.model_id) for key, value in metrics.items()]
        self.log_metrics(run_id, rows)
        self.link_model(run_id, model.model_id, step)
        return self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def link_model(self, run_id: str, model_id: str, step: int) -> None:
        """Show a model with a run that it came from; again changes nothing."""
        outputs = self.client.get_run(run_id).outputs
        if outputs is None or model_id not in [output.model_id for output in outputs.model_outputs]:
            self.client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])

    def models_of(self, run_id: str) -> list[LoggedModel]:
        """Logged models of a run, not deleted."""
        return list(self.client.search_logged_models([self.experiment_id], f"source_run_id = '{run_id}'"))

    def delete_models(self, run_id: str) -> None:
        """Put a run's logged models into MLflow's bin, but for those that somebody has registered."""
        for model in self.models_of(run_id):
            if VERSIONS_TAG not in model.tags:
                self.client.delete_logged_model(model.model_id)


def artifact_location(experiment: Experiment) -> Path | None:
    """Where the artifacts of a new MLflow experiment go: beside the SQLite default; None: where its server says."""
    return experiment.storage.path.resolve() / "mlflow_artifacts" if experiment.tracking.uri is None else None


def open_store(tracking_uri: str, experiment_name: str, artifact_location: Path | None = None) -> Store:
    """Open MLflow, making the database (for ``sqlite:///PATH``) and the experiment where they are absent.

    A server that is down is noticed in seconds.

    Args:
        tracking_uri: ``sqlite:///PATH``, ``http://HOST:PORT``, ….
        experiment_name: name of the MLflow experiment that collects the runs.
        artifact_location: absolute folder for the artifacts of a new experiment. None: ``mlartifacts`` beside an
            SQLite database, else what the server has been told.

    Raises:
        ProblemsFound: MLflow cannot be reached, or the experiment was deleted.
    """
    if urlsplit(tracking_uri).password is not None:
        advice = "write the address without it, and put it into MLFLOW_TRACKING_PASSWORD or PGPASSWORD"
        problem = Problem("tracking.uri", "a password, which would be kept and shown", "an address alone", advice)
        raise ProblemsFound("MLflow cannot be reached.", [problem])
    _settle_environment()
    wrong_version = server_problem(tracking_uri)
    if wrong_version is not None:
        raise ProblemsFound("MLflow cannot be used.", [wrong_version])
    database = _sqlite_path(tracking_uri)
    if database is not None:
        artifact_location = artifact_location or database.parent / "mlartifacts"
    try:
        # processes that open a new database at the same time trip over each other's migrations
        with file_lock(database.with_name(f".{database.name}.lock")) if database else nullcontext():
            client = MlflowClient(tracking_uri)
            experiment_id = _experiment_id(client, tracking_uri, experiment_name, artifact_location)
    except ProblemsFound:
        raise
    except Exception as error:  # MLflow's own, the database driver's, a missing driver's, the disk's
        first_line = (str(error) or repr(error)).splitlines()[0]
        problem = database_problem(tracking_uri, error) or Problem(
            "tracking.uri", f"{tracking_uri}: {first_line}", "an MLflow that answers", "start it or correct the address"
        )
        raise ProblemsFound("MLflow cannot be reached.", [problem], exit_code=1) from error
    return Store(client, experiment_id, tracking_uri)


def _experiment_id(client: MlflowClient, tracking_uri: str, name: str, artifact_location: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        location = artifact_location.resolve().as_uri() if artifact_location else None
        try:
            return client.create_experiment(name, location, EXPERIMENT_TAGS)
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another driver was quicker
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage != "active":
        advice = f"restore it (mlflow experiments restore -x {found.experiment_id}) or write another name"
        problem = Problem("tracking.experiment", f"{name}, deleted", f"a living experiment at {tracking_uri}", advice)
        raise ProblemsFound("The MLflow experiment cannot be used.", [problem])
    return found.experiment_id


def _settle_environment() -> None:
    """Make a down server fail in seconds (MLflow's defaults: minutes); what the user has set stays."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a live table is on the screen
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # hospital networks


@contextmanager
def patient_uploads(timeout_s: int = 600) -> Iterator[None]:
    """Inside, MLflow's requests may take this long: a server answers an upload only once it has stored the file."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # MLflow reads it at every request
    with _upload_lock:  # one at a time in a process, or the last to leave would put the wrong value back
        before = os.environ[name]
        os.environ[name] = str(max(timeout_s, int(before)))
        try:
            yield
        finally:
            os.environ[name] = before


def _sqlite_path(tracking_uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(tracking_uri.removeprefix(prefix)).resolve() if tracking_uri.startswith(prefix) else None
