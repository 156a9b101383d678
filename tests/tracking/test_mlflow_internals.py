"""Each undocumented part of MLflow that we use is still there: a failure names the part and MLflow's version."""

import inspect
import re
import shutil
import sqlite3
from functools import cache
from pathlib import Path
from pydoc import locate

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from uncseg.tracking import mlflow_internals
from uncseg.tracking.destination import ENVIRONMENT
from uncseg.tracking.stored_models import PROGRESS

PACKAGE = Path(mlflow.__file__).parent


def changed(part):
    return f"MLflow {mlflow.__version__} has changed {part}; correct uncseg/tracking/mlflow_internals.py"


@cache
def ui_code():
    """The text of the built UI."""
    return "".join(file.read_text(errors="replace") for file in (PACKAGE / "server/js/build").rglob("*.js"))


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("mlflow.utils.credentials", "get_default_host_creds", {"store_uri"}),
        ("mlflow.utils.rest_utils", "http_request", {"host_creds", "endpoint", "method", "max_retries", "timeout"}),
        ("mlflow.store.artifact.utils.models", "get_model_name_and_version", {"client", "models_uri"}),
    ],
)
def test_private_functions_take_the_same_parameters(module, name, parameters):
    found = locate(f"{module}.{name}")
    assert found is not None, changed(f"{module}.{name}: it is gone")
    assert parameters <= set(inspect.signature(found).parameters), changed(f"the parameters of {module}.{name}")


def test_the_tag_of_registered_versions_is_the_same():
    name = locate("mlflow.utils.mlflow_tags.MLFLOW_MODEL_VERSIONS")
    assert name == mlflow_internals.VERSIONS_TAG, changed("the tag of a logged model's versions")


def test_error_codes_are_the_same():
    codes = locate("mlflow.protos.databricks_pb2.ErrorCode")
    unknown = set(mlflow_internals.REGISTRY_REFUSALS).difference(codes.keys() if codes else [])
    assert not unknown, changed(f"the error codes {unknown}")


@pytest.mark.parametrize("name", [*ENVIRONMENT, PROGRESS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"])
def test_environment_variables_have_the_same_names(name):
    assert locate(f"mlflow.environment_variables.{name}") is not None, changed(f"the variable {name}")


@pytest.mark.parametrize(
    "text", ["mlflow.experimentKind", "custom_model_development", "workflowType", "machine_learning"]
)
def test_the_ui_knows_the_words_that_choose_its_mode(text):
    assert text in ui_code(), changed(f"its UI: {text} is not in its code")


def test_the_ui_has_the_same_address_for_a_run():
    page = mlflow_internals.ui_page(":experimentId", ":runUuid").removeprefix("#")
    assert page in ui_code(), changed(f"its UI: no route {page}")


def test_the_message_about_another_schema_is_the_same(database):
    another = shutil.copy(database, database.with_name("another.db"))  # MLflow keeps a database open
    with sqlite3.connect(another) as connection:
        (newest,) = connection.execute("select version_num from alembic_version").fetchone()
        connection.execute("update alembic_version set version_num = '0123456789ab'")
    with pytest.raises(MlflowException) as caught:
        MlflowClient(f"sqlite:///{another}").search_experiments()
    found = re.search(mlflow_internals.SCHEMA_ERROR, str(caught.value))
    assert found is not None, changed(f"its message about a database of another version: {caught.value}")
    assert found[1] == "0123456789ab"
    assert mlflow_internals.is_known_schema(newest), changed("the folder of its migrations")
    assert not mlflow_internals.is_known_schema("0123456789ab")
