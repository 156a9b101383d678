"""Everything we use of MLflow that its documentation does not promise; a test of each names what a new MLflow changed.

Private modules are imported inside the functions, so that the constants cost no import of MLflow.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from requests import Response

VERSIONS_TAG = "mlflow.modelVersions"
"""Tag of a logged model: JSON list of the registered versions made of it."""
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Without this tag the UI treats an experiment as one of language models, and hides the charts."""
UI_MODE = "?workflowType=machine_learning"
"""Ends an address in the UI; without it the UI shows the page as one of language models."""
SCHEMA_ERROR = r"out-of-date database schema \(found version ([^,)]*)"
"""MLflow's message about a database of another version; the group is the database's revision."""
ARTIFACT_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of a database that say where files lie, each an address of a folder."""
NOT_ALLOWED = ("PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED")
NOT_THERE = ("ENDPOINT_NOT_FOUND", "NOT_FOUND", "NOT_IMPLEMENTED", "FEATURE_DISABLED")
REGISTRY_REFUSALS = (*NOT_ALLOWED, *NOT_THERE)
"""Error codes by which a server says that it has no model registry, or that the user may not write to it."""
CREDENTIALS = ("USERNAME", "PASSWORD", "TOKEN", "AWS_SIGV4", "AUTH", "CLIENT_CERT_PATH")
"""Ends of the variables MLFLOW_TRACKING_… by which a server knows who asks."""


def ui_page(experiment_id: str, run_id: str) -> str:
    """Return a run's page in MLflow's UI, to be appended to the server's address and a slash."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def ask_server(tracking_uri: str, path: str, timeout_s: float) -> "Response":
    """Send a GET request as MLflow sends its own: with the password and the certificates that the environment names."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    return http_request(get_default_host_creds(tracking_uri), path, "GET", max_retries=0, timeout=timeout_s)


def send_no_credentials() -> None:
    """Let this process send servers no password, token or certificate, wherever MLflow and requests look for them."""
    from mlflow.utils import credentials

    for end in CREDENTIALS:
        os.environ.pop(f"MLFLOW_TRACKING_{end}", None)
    os.environ["NETRC"] = os.devnull
    credentials.read_mlflow_creds = lambda: credentials.MlflowCreds(None, None)  # those of a file in the home


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a server of one's own, which needs none: a database may name other servers' files."""
    secret = {f"MLFLOW_TRACKING_{end}" for end in CREDENTIALS}
    return {name: value for name, value in environment.items() if name not in secret} | {"NETRC": os.devnull}


def model_version(client: "MlflowClient", uri: str) -> tuple[str, str]:
    """Return the name and version that ``models:/NAME/VERSION``, ``…/latest`` or ``models:/NAME@ALIAS`` stands for."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    name, version = get_model_name_and_version(client, uri)
    return name, str(version)


def is_known_schema(revision: str) -> bool:
    """Return whether the installed MLflow can migrate a database from this Alembic revision."""
    import mlflow

    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    return any(file.name.startswith(f"{revision}_") for file in migrations.iterdir())
