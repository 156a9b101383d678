"""Where runs go: an MLflow database or server of a version that fits, and the experiment that collects the runs.

store = open_store("sqlite:////data/runs/mlflow.db", "uncseg")
"""

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from uncseg.config.addresses import ARTIFACTS, sqlite_path
from uncseg.config.experiment import Experiment
from uncseg.config.secret_addresses import ADVICE, masked, secret_in
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import file_lock
from uncseg.tracking.mlflow_internals import EXPERIMENT_TAGS, SCHEMA_ERROR, ask_server, is_known_schema
from uncseg.tracking.moved_databases import BESIDE_TAG, follow_move
from uncseg.tracking.reachable import require_reachable
from uncseg.tracking.reasons import problem_of
from uncseg.tracking.store import Store

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # with the next, a server that is down is noticed in seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a live table is on the screen
    "MLFLOW_DISABLE_TELEMETRY": "true",  # hospital networks
}
"""Set unless the user has set them."""
OLDEST_SERVER = (3, 0)
"""The first version with logged models, which hold the checkpoints."""


class AnotherVersion(ProblemsFound):
    """A server or a database of another MLflow version; waiting does not help."""


class Destination(NamedTuple):
    """Where runs go; ``open_store(*destination)`` opens it."""

    tracking_uri: str
    """``sqlite:///PATH``, ``http://HOST:PORT``, …"""
    experiment: str
    """Name of the MLflow experiment that collects the runs."""
    artifact_location: Path | None = None
    """Absolute folder for the artifacts of a new experiment; None: ``mlflow_artifacts`` beside an SQLite database, else
    what the server is set to."""

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """Return the destination of an experiment's runs; artifacts lie beside the default database."""
        own = experiment.storage.path.resolve() / ARTIFACTS if experiment.tracking.uri is None else None
        return cls(experiment.tracking_uri, experiment.tracking.experiment, own)


def open_store(tracking_uri: str, experiment_name: str, artifact_location: Path | None = None) -> Store:
    """Open a :class:`Destination`; the database (for ``sqlite:///PATH``) and the experiment are created if absent.

    Raises:
        ProblemsFound: the address is wrong, MLflow cannot be reached, or the experiment was deleted.
        AnotherVersion: the server or the database needs another version of MLflow.
    """
    _check_address(tracking_uri)
    set_environment()
    database = sqlite_path(tracking_uri)
    beside = None if database is None else database.parent / ARTIFACTS
    artifact_location = artifact_location or beside
    try:
        require_reachable(tracking_uri, database)
        if tracking_uri.startswith(("http://", "https://")) and (wrong_version := _server_problem(tracking_uri)):
            raise AnotherVersion("MLflow cannot be used.", [wrong_version])
        # Processes that open a new database at the same time disturb each other's migrations.
        with file_lock(database.with_name(f".{database.name}.lock")) if database else nullcontext():
            if database is not None and beside is not None and database.is_file():
                follow_move(database, beside)
            client = MlflowClient(tracking_uri)
            tags = BESIDE_TAG if beside is not None and artifact_location == beside else {}
            experiment_id = _experiment_id(client, tracking_uri, experiment_name, artifact_location, tags)
    except ProblemsFound:
        raise
    except Exception as error:  # from MLflow, the database's driver, a missing driver, the disk
        if wrong_version := _database_problem(tracking_uri, error):
            raise AnotherVersion("MLflow cannot be used.", [wrong_version]) from error
        problem = problem_of("tracking.uri", tracking_uri, error)
        raise ProblemsFound("MLflow cannot be reached.", [problem], exit_code=1) from error
    return Store(client, experiment_id, tracking_uri)


def set_environment() -> None:
    """Set :data:`ENVIRONMENT` for this process and what it starts."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _check_address(tracking_uri: str) -> None:
    if (secret := secret_in(tracking_uri)) is not None:
        problem = Problem("tracking.uri", f"{secret}, which would be stored and shown", "an address alone", ADVICE)
        raise ProblemsFound("MLflow cannot be reached.", [problem])
    try:
        _ = urlsplit(tracking_uri).port
    except ValueError as error:
        problem = Problem("tracking.uri", f"{masked(tracking_uri)}: {error}", "an address", "correct it")
        raise ProblemsFound("MLflow cannot be reached.", [problem]) from error


def _server_problem(tracking_uri: str) -> Problem | None:
    """Return what is wrong with a server's version; None if it fits or is unknown.

    A server accepts what older clients of its own major version send; an older server lacks what we send.

    Raises:
        MlflowException: the server does not answer.
    """
    answer = ask_server(tracking_uri, "/version", timeout_s=10)
    text, ours = answer.text[:100].strip(), mlflow.__version__
    numbers = re.match(r"(\d+)\.(\d+)", text)
    if answer.status_code != 200 or numbers is None:
        return None
    version = int(numbers[1]), int(numbers[2])
    if version >= OLDEST_SERVER and version[0] == int(ours.split(".")[0]):
        return None
    expected = f"{OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer of the same major version as the client, {ours}"
    advice = "upgrade the server (mlflow db upgrade DATABASE, after a backup), or name another in tracking.uri"
    return Problem("tracking.uri", f"{tracking_uri}: an MLflow server {text}", expected, advice)


def _database_problem(tracking_uri: str, error: Exception) -> Problem | None:
    """Return what an error of opening a database says about its MLflow version; None if it has another reason."""
    schema = re.search(SCHEMA_ERROR, str(error))
    if schema is None:
        return None
    if is_known_schema(schema[1]):
        found, advice = "a database of an older MLflow", f"back it up, then: mlflow db upgrade {tracking_uri}"
    else:  # MLflow calls this one out of date, too
        found, advice = "a database of a newer MLflow", "install that MLflow, or name another database in tracking.uri"
    return Problem("tracking.uri", f"{tracking_uri}: {found}", f"one of MLflow {mlflow.__version__}", advice)


def _experiment_id(
    client: MlflowClient, tracking_uri: str, name: str, artifact_location: Path | None, tags: dict[str, str]
) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        location = artifact_location.resolve().as_uri() if artifact_location else None
        try:
            return client.create_experiment(name, location, EXPERIMENT_TAGS | tags)
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another driver may have created it meanwhile
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage != "active":
        advice = f"restore it (mlflow experiments restore -x {found.experiment_id}) or choose another name"
        problem = Problem("tracking.experiment", f"{name}, deleted", f"an active experiment at {tracking_uri}", advice)
        raise ProblemsFound("The MLflow experiment cannot be used.", [problem])
    return found.experiment_id
