"""Whether a server or a database of another MLflow version can be used with the installed one."""

import re

import mlflow
from mlflow.exceptions import MlflowException

from uncseg.errors import Problem
from uncseg.tracking.mlflow_internals import SCHEMA_ERROR, ask_server, is_known_schema

OLDEST_SERVER = (3, 0)
"""The first version with logged models, which hold the checkpoints."""
ANSWER_WITHIN_S = 10


def server_problem(tracking_uri: str) -> Problem | None:
    """Return what is wrong with the version of the server at an http address; None if it fits or is unknown.

    A server accepts what older clients of its own major version send; an older server lacks what we send.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    try:
        answer = ask_server(tracking_uri, "/version", ANSWER_WITHIN_S)
    except (MlflowException, OSError, ValueError):
        return None  # the next request reports that the server does not answer
    text = answer.text[:100].strip() if answer.status_code == 200 else ""
    numbers = re.match(r"(\d+)\.(\d+)", text)
    if numbers is None:
        return None
    version, ours = (int(numbers[1]), int(numbers[2])), mlflow.__version__
    if version >= OLDEST_SERVER and version[0] == int(ours.split(".")[0]):
        return None
    expected = f"{OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer of the same major version as the client, {ours}"
    advice = "upgrade the server (mlflow db upgrade DATABASE, after a backup), or name another in tracking.uri"
    return Problem("tracking.uri", f"{tracking_uri}: an MLflow server {text}", expected, advice)


def database_problem(tracking_uri: str, error: BaseException) -> Problem | None:
    """Return what an error of opening a database says about its MLflow version; None if it has another reason."""
    schema = re.search(SCHEMA_ERROR, str(error))
    if schema is None:
        return None
    if is_known_schema(schema[1]):
        found, advice = "a database of an older MLflow", f"back it up, then: mlflow db upgrade {tracking_uri}"
    else:  # MLflow calls this one out of date, too
        found, advice = "a database of a newer MLflow", "install that MLflow, or name another database in tracking.uri"
    return Problem("tracking.uri", f"{tracking_uri}: {found}", f"one of MLflow {mlflow.__version__}", advice)
