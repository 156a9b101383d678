"""The store: the few operations on MLflow that we need, each with an explicit run id.

    store = open_store("sqlite:////data/runs/mlflow.db", "uncseg")  # in tracking.destination
    run_id = store.create_run("demo", {"mlflow.parentRunId": parent})

MLflow's fluent functions keep an "active run" per thread, and the syncer has a thread of its own, so nothing here uses
them. Every method may raise ``MlflowException`` if MLflow cannot be reached.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient, entities
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from PIL import Image

from uncseg.cluster.environment import variables_set
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import json_text
from uncseg.tracking.mlflow_internals import VERSIONS_TAG, ui_page
from uncseg.tracking.reasons import OTHERWISE, cause_of, whole_reason

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
CONTENT_TAG = "uncseg.sha256"
METRICS_PER_CALL = 1000
"""MLflow's own limit on log_batch."""
UPLOAD_S = 600
TERMINAL = ("FINISHED", "FAILED", "KILLED")
"""Statuses that end a run."""
_upload_lock = threading.Lock()


class NotStored(ProblemsFound):
    """Something that MLflow, or the place where it keeps files, did not take."""


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Raise :class:`NotStored`, with the name of what was not stored and the reason, if the block fails."""
    try:
        yield
    except Exception as error:  # from MLflow, the disk, an object store's client, a damaged checkpoint
        known = error.problems[0] if isinstance(error, ProblemsFound) else None
        reason = f"{known.where}: {known.found}" if known else whole_reason(error)
        cause = cause_of(error)
        advice = "free some space or repair the store" if cause is OTHERWISE else cause.advice
        problem = Problem(what, reason, "a store that takes it", f"{advice}; then: uncseg sync RUN")
        raise NotStored("MLflow did not take everything.", [problem], exit_code=1) from error


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

    def run_page(self, run_id: str) -> str:
        """Return a run's page in MLflow's UI, to be appended to the server's address and a slash."""
        return ui_page(self.experiment_id, run_id)

    def find_run(self, tag: str, value: str) -> str | None:
        """Return the id of the run, not deleted, whose ``tag`` has this value; None if there is none."""
        runs = self.client.search_runs([self.experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
        return runs[0].info.run_id if runs else None

    def has_run(self, run_id: str) -> bool:
        """Return whether the run exists and was not deleted."""
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log params; the same ones again change nothing."""
        self.client.log_batch(
            run_id, params=[entities.Param(key, value) for key, value in params.items()], synchronous=True
        )

    def log_dataset(self, run_id: str, name: str, digest: str, path: str) -> None:
        """Name a run's dataset, its digest (at most 36 characters) and folder; the same again changes nothing."""
        dataset = entities.Dataset(name, digest, "local", json_text({"uri": path}))
        self.client.log_inputs(run_id, [entities.DatasetInput(dataset)])

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Log metrics, at most 1000 per call; the same row (name, value, time, step) again stays one row.

        Metrics with a ``model_id`` are logged to that logged model as well.
        """
        for start in range(0, len(metrics), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL], synchronous=True)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags; those of the same name are replaced."""
        self.client.log_batch(
            run_id, tags=[entities.RunTag(key, value) for key, value in tags.items()], synchronous=True
        )

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Set RUNNING, SCHEDULED, FINISHED, FAILED or KILLED; the last three end the run (at ``end_ms``, else now)."""
        if status in TERMINAL:
            self.client.set_terminated(run_id, status, end_ms)
        else:
            self.client.update_run(run_id, status)

    def delete_run(self, run_id: str) -> None:
        """Put a run, if it exists, into MLflow's bin (it can be restored), with its models that are not registered."""
        self.delete_models(run_id)
        if self.has_run(run_id):
            self.client.delete_run(run_id)

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact, into an artifact folder or the root; an artifact of that name is replaced."""
        with patient_uploads():
            self.client.log_artifact(run_id, str(path), folder)

    def log_image(self, run_id: str, path: Path, key: str, step: int, time_ms: int) -> None:
        """Log a small PNG of an epoch; the UI shows those of one key side by side, or by a slider over ``step``.

        The timeout is short, because the end of a run waits for the current picture.
        """
        with Image.open(path) as image:
            self.client.log_image(run_id, image, key=key, step=step, timestamp=time_ms, synchronous=True)

    def log_model(
        self,
        run_id: str,
        name: str,
        content: str,
        folders: Callable[[LoggedModel], Generator[Path, None, None]],
        metrics: Sequence[Metric],
        step: int,
        params: Mapping[str, str],
    ) -> LoggedModel:
        """Log a model of a run; the same content is logged once, and completed if a kill interrupted the upload.

        Args:
            content: digest of the model's files.
            folders: yields, for the model's entry in MLflow, the folders whose files make up the model; each is
                requested after the one before has been stored, so that they need not all lie on a disk at once.
            metrics: finite values, tied to model and run; a row that the run has is not doubled.
            step: epoch of the model.
            params: shown beside the model, searchable.
        """
        model = next((known for known in self.models_of(run_id) if known.tags.get(CONTENT_TAG) == content), None)
        if model is not None and model.status == LoggedModelStatus.READY:
            return model
        if model is None:
            tags, shown = {CONTENT_TAG: content}, dict(params)
            model = self.client.create_logged_model(self.experiment_id, name, run_id, tags, shown, "nnU-Net")
        with closing(folders(model)) as parts:
            for folder in parts:
                with patient_uploads():
                    self.client.log_model_artifacts(model.model_id, str(folder))
        rows = [Metric(row.key, row.value, row.timestamp, row.step, model_id=model.model_id) for row in metrics]
        self.log_metrics(run_id, rows)
        self.link_model(run_id, model.model_id, step)
        return self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def link_model(self, run_id: str, model_id: str, step: int) -> None:
        """Show a model with a run that it came from; doing so again changes nothing."""
        outputs = self.client.get_run(run_id).outputs
        if outputs is None or model_id not in [output.model_id for output in outputs.model_outputs]:
            self.client.log_outputs(run_id, [entities.LoggedModelOutput(model_id, step)])

    def models_of(self, run_id: str) -> list[LoggedModel]:
        """Return the logged models of a run that are not deleted."""
        return list(self.client.search_logged_models([self.experiment_id], f"source_run_id = '{run_id}'"))

    def delete_models(self, run_id: str) -> None:
        """Put a run's logged models into MLflow's bin, except those that are registered."""
        for model in self.models_of(run_id):
            if VERSIONS_TAG not in model.tags:
                self.client.delete_logged_model(model.model_id)


@contextmanager
def patient_uploads() -> Iterator[None]:
    """Let MLflow's requests take ten minutes: a server answers an upload only after it has stored the file."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # MLflow reads it at every request
    # one upload at a time per process; otherwise the last one could restore the wrong value
    with _upload_lock, variables_set({name: str(max(UPLOAD_S, int(os.environ[name])))}):
        yield
