"""Models in MLflow, brought onto a disk."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, write_text
from uncseg.tracking.mlflow_internals import model_version

PROGRESS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


def find_stored(uri: str) -> tuple[str, str]:
    """Ask MLflow for a model, each time anew: what a name stands for can change, and so can the MLflow that is asked.

    Args:
        uri: models:/NAME/VERSION, models:/NAME@ALIAS, models:/NAME/latest, models:/MODEL_ID, runs:/RUN_ID/NAME; of any
            other kind (s3:/…) nobody is asked.

    Returns:
        The same model by a name that stays (an alias or "latest" is a version), and a digest of the MLflow that was
        asked and of what it says the model is.

    Raises:
        ProblemsFound: where MLflow has no such model or does not answer.
    """
    with _told_of(uri):
        client = MlflowClient()
        uri, known = _known(client, uri)
        return uri, digest([client.tracking_uri, mlflow.get_registry_uri(), uri, known])


def _known(client: MlflowClient, uri: str) -> tuple[str, Any]:
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
    name, version = model_version(client, uri)
    found = client.get_model_version(name, version)
    known = [found.model_id, found.source, found.run_id, found.creation_timestamp]
    return f"models:/{name}/{version}", known


@contextmanager
def _told_of(uri: str) -> Iterator[None]:
    """What MLflow says against a model, for people; what stands before a host's name may be a password."""
    try:
        yield
    except Exception as error:  # MLflow's own, the database driver's, those of each object store's client
        first_line = (str(error) or repr(error)).splitlines()[0]
        asked = os.environ.get("MLFLOW_TRACKING_URI", "the default MLflow: MLFLOW_TRACKING_URI is not set")
        where, found, expected = (re.sub(r"//[^/@\s]*@", "//", text) for text in (uri, first_line, asked))
        advice = "correct the URI, or set MLFLOW_TRACKING_URI to the MLflow that has it"
        problem = Problem(where, found, f"a model in {expected}", advice)
        # without the cause, which names the address in full
        raise ProblemsFound("There is no such model.", [problem], exit_code=1) from None


@contextmanager
def _bars_on_terminals_alone() -> Iterator[None]:
    """A log is no place for MLflow's progress bars; who has asked for them, or against them, has them so."""
    if sys.stderr.isatty() or PROGRESS in os.environ:
        yield
        return
    os.environ[PROGRESS] = "false"
    try:
        yield
    finally:
        del os.environ[PROGRESS]


def download(uri: str, target: Path) -> Path:
    """Download a model once; needs ``MLFLOW_TRACKING_URI`` where MLflow is not the default one.

    Args:
        uri: models:/NAME/VERSION, models:/MODEL_ID or runs:/RUN_ID/NAME, as :func:`find_stored` gives it.
        target: folder that holds it afterwards.

    Returns:
        ``target``.

    Raises:
        ProblemsFound: where MLflow has no such model or does not answer.
    """
    whole = target / ".whole"
    if whole.is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    with _told_of(uri), _bars_on_terminals_alone():
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target))
    write_text(whole, f"{uri}\n")
    return target
