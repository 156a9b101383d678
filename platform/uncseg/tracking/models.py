"""Models in MLflow, brought onto a disk."""

import os
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import write_text


def download(uri: str, target: Path) -> Path:
    """Download a model once; needs ``MLFLOW_TRACKING_URI`` where MLflow is not the default one.

    Args:
        uri: models:/NAME/VERSION, models:/NAME@ALIAS, models:/MODEL_ID or runs:/RUN_ID/NAME.
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
    try:
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target))
    except (MlflowException, OSError) as error:
        first_line = (str(error) or repr(error)).splitlines()[0]
        asked = os.environ.get("MLFLOW_TRACKING_URI", "the default MLflow: MLFLOW_TRACKING_URI is not set")
        advice = "correct the URI, or set MLFLOW_TRACKING_URI to the MLflow that has it"
        problem = Problem(uri, first_line, f"a model in {asked}", advice)
        raise ProblemsFound("There is no such model.", [problem], exit_code=1) from error
    write_text(whole, f"{uri}\n")
    return target
