"""Models in MLflow, brought onto a disk."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import write_text


def fixed(uri: str) -> str:
    """The same model by a name that stays: an alias or "latest" is asked for its version.

    Raises:
        ProblemsFound: where MLflow has no such model or does not answer.
    """
    alias = re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri)
    latest = re.fullmatch(r"models:/([^/@]+)/latest", uri)
    if not alias and not latest:
        return uri
    with _told_of(uri):
        client = MlflowClient()
        if alias:
            return f"models:/{alias[1]}/{client.get_model_version_by_alias(alias[1], alias[2]).version}"
        assert latest is not None
        versions = [int(one.version) for one in client.search_model_versions(f"name = '{latest[1]}'")]
        if not versions:
            raise MlflowException(f"no version of {latest[1]}")
        return f"models:/{latest[1]}/{max(versions)}"


@contextmanager
def _told_of(uri: str) -> Iterator[None]:
    """What MLflow says against a model, for people."""
    try:
        yield
    except (MlflowException, OSError) as error:
        first_line = (str(error) or repr(error)).splitlines()[0]
        asked = os.environ.get("MLFLOW_TRACKING_URI", "the default MLflow: MLFLOW_TRACKING_URI is not set")
        advice = "correct the URI, or set MLFLOW_TRACKING_URI to the MLflow that has it"
        problem = Problem(uri, first_line, f"a model in {asked}", advice)
        raise ProblemsFound("There is no such model.", [problem], exit_code=1) from error


def download(uri: str, target: Path) -> Path:
    """Download a model once; needs ``MLFLOW_TRACKING_URI`` where MLflow is not the default one.

    Args:
        uri: models:/NAME/VERSION, models:/MODEL_ID or runs:/RUN_ID/NAME, as :func:`fixed` gives it.
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
    with _told_of(uri):
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target))
    write_text(whole, f"{uri}\n")
    return target
