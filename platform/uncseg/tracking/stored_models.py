"""Find a model that MLflow stores, and download it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from uncseg.cluster.environment import variables_set
from uncseg.config.addresses import sqlite_path
from uncseg.config.secret_addresses import masked
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, write_text
from uncseg.tracking.destination import set_environment
from uncseg.tracking.mlflow_internals import model_version
from uncseg.tracking.reachable import require_reachable
from uncseg.tracking.reasons import ABSENT, OTHERWISE, cause_of, whole_reason

PROGRESS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


def find_stored(uri: str) -> tuple[str, str]:
    """Ask MLflow for a model, each time: a name can come to stand for another model, and the MLflow asked can change.

    The URI is models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/MODEL_ID or runs:/RUN_ID/NAME;
    for any other kind (s3:/…) nothing is asked. Returned are a URI of the same model that does not change (an alias or
    "latest" becomes a version), and a digest of the MLflow that was asked and of its answer.

    Raises:
        ProblemsFound: MLflow has no such model or does not answer.
    """
    set_environment()
    with _errors_for_people(uri):
        require_reachable(mlflow.get_tracking_uri(), sqlite_path(mlflow.get_tracking_uri()))
        client = MlflowClient()
        uri, identity = _identify(client, uri)
        return uri, digest([client.tracking_uri, mlflow.get_registry_uri(), uri, identity])


def _identify(client: MlflowClient, uri: str) -> tuple[str, Any]:
    """Return the URI that does not change, and what tells the model from others."""
    scheme, _, rest = uri.partition(":/")
    name, _, which = rest.strip("/").partition("/")
    if scheme == "runs":
        run = client.get_run(name)
        if run.info.lifecycle_stage != "active":
            raise MlflowException(f"the run {name} was deleted")
        models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{name}'")
        files = [(file.path, file.file_size) for file in client.list_artifacts(name, which)]
        return uri, [run.info.artifact_uri, sorted(model.model_id for model in models), files]
    if scheme != "models":
        return uri, None
    if not which and "@" not in name:
        model = client.get_logged_model(name)
        return uri, [model.artifact_location, model.creation_timestamp]
    name, number = model_version(client, uri)
    version = client.get_model_version(name, number)
    return f"models:/{name}/{number}", [version.model_id, version.source, version.run_id, version.creation_timestamp]


@contextmanager
def _errors_for_people(uri: str) -> Iterator[None]:
    """Raise MLflow's errors about a model as problems, without the secrets of addresses."""
    try:
        yield
    except Exception as error:  # from MLflow, the database's driver, an object store's client
        asked = os.environ.get("MLFLOW_TRACKING_URI", "the default MLflow: MLFLOW_TRACKING_URI is not set")
        where, found, expected = masked(uri), whole_reason(error), masked(asked)
        cause = cause_of(error)
        advice = "correct the URI, or set MLFLOW_TRACKING_URI to the MLflow that has it"
        advice = advice if cause in (OTHERWISE, ABSENT) else f"{cause.advice}; or {advice}"
        problem = Problem(where, found, f"a model in {expected}", advice)
        # without the cause, which contains the whole address
        raise ProblemsFound("There is no such model.", [problem], exit_code=1) from None


def download(uri: str, target: Path) -> None:
    """Download a model once into a folder, by a URI that :func:`find_stored` returned.

    ``MLFLOW_TRACKING_URI`` names the MLflow unless it is the default one. Progress bars are for terminals alone.

    Raises:
        ProblemsFound: MLflow has no such model or does not answer.
    """
    whole = target / ".whole"
    if not whole.is_file():
        target.mkdir(parents=True, exist_ok=True)
        shown = os.environ.get(PROGRESS, "true" if sys.stderr.isatty() else "false")
        with _errors_for_people(uri), variables_set({PROGRESS: shown}):
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target))
        write_text(whole, f"{uri}\n")
