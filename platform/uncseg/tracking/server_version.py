"""Whether a server or a database of another MLflow can be used with this one."""

import re
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from uncseg.errors import Problem

OLDEST_SERVER = (3, 0)
"""The first with logged models, which hold the checkpoints."""
ANSWER_WITHIN_S = 10


def server_problem(tracking_uri: str) -> Problem | None:
    """What is wrong with the version of the server at an http address; None where it fits, or does not tell.

    A server takes what older clients of its own major version send it; an older server lacks what we send.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    try:
        # as MLflow asks: with the password and the certificates that the environment names
        answer = http_request(
            get_default_host_creds(tracking_uri), "/version", "GET", max_retries=0, timeout=ANSWER_WITHIN_S
        )
    except (MlflowException, OSError, ValueError):
        return None  # that it does not answer is found out, and said, by whoever asks it for more
    told = answer.text[:100].strip() if answer.status_code == 200 else ""
    numbers = re.match(r"(\d+)\.(\d+)", told)
    if numbers is None:
        return None
    version, ours = (int(numbers[1]), int(numbers[2])), mlflow.__version__
    if version >= OLDEST_SERVER and version[0] == int(ours.split(".")[0]):
        return None
    expected = f"{OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer of the same major version as the client, {ours}"
    advice = "upgrade the server (mlflow db upgrade DATABASE, after a backup), or name another in tracking.uri"
    return Problem("tracking.uri", f"{tracking_uri}: an MLflow server {told}", expected, advice)


def database_problem(tracking_uri: str, error: BaseException) -> Problem | None:
    """What an error of opening a database says about the MLflow that made it; None: it has another reason."""
    schema = re.search(r"out-of-date database schema \(found version ([^,)]*)", str(error))
    if schema is None:
        return None
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if any(file.name.startswith(f"{schema[1]}_") for file in migrations.iterdir()):
        found, advice = "a database of an older MLflow", f"back it up, then: mlflow db upgrade {tracking_uri}"
    else:  # MLflow calls it out of date as well
        found, advice = "a database of a newer MLflow", "install that MLflow, or name another database in tracking.uri"
    return Problem("tracking.uri", f"{tracking_uri}: {found}", f"one of MLflow {mlflow.__version__}", advice)
