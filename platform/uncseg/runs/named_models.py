"""What MODEL on the command line can name, as far as names of files tell: no torch is imported, no network opened."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from uncseg.config.fields import apply_overrides, as_overrides
from uncseg.config.reading import validate
from uncseg.config.secret_addresses import masked
from uncseg.config.sections import Evaluation, Resources
from uncseg.errors import Problem, ProblemsFound, raise_if_any, similar_path
from uncseg.layout import folds_in, is_model_folder
from uncseg.runs.run_opening import open_existing_run, recorded_folds
from uncseg.section import Section
from uncseg.tasks.task import Task

NO_SUCH_MODEL = "There is no such model."
ASKED = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
"""Environment variables that name the MLflow to ask."""
_STORED = {"models": r"models:/([^/@]+([/@][^/@]+)?|/.+)/?", "runs": r"runs:/[^/@]+/.+"}
"""Forms of addresses by their beginning; models:// has the profile of a Databricks before the name."""


class ModelSections(Section):
    """What can be set of a model without an experiment, whose description may bring evaluation fields."""

    resources: Resources = Resources()
    evaluation: Evaluation = Evaluation()


def settings_of_model(overrides: Sequence[str] | None, evaluation: object = None) -> ModelSections:
    """Return the settings of a model without an experiment.

    Args:
        overrides: ``FIELD=VALUE``.
        evaluation: the fields that the model's description brings.

    Raises:
        ProblemsFound: an override cannot be applied.
    """
    content = {"evaluation": evaluation or {}}
    problems, settings = apply_overrides(content, overrides or []), as_overrides(overrides or [])
    return validate(ModelSections, content, Path("--set"), "The fields cannot be changed.", problems, settings)


def is_in_mlflow(source: str) -> bool:
    """Return whether MODEL is an address of MLflow, as models:/NAME/VERSION."""
    return re.match(r"[a-z][a-z-]+:/", source) is not None


def require_stored_name(source: str) -> None:
    """Refuse an address of MLflow that names no model by its form, or that no MLflow is given for.

    MLflow would make a database of its own in the working directory, and look there.

    Raises:
        ProblemsFound: saying why.
    """
    form, problems = _STORED.get(source.partition(":")[0]), []
    if form is not None and re.fullmatch(form, source) is None:
        expected = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/MODEL_ID or runs:/RUN_ID/NAME"
        problems.append(Problem("MODEL", masked(source), expected, "correct the address"))
    if form is not None and not any(os.environ.get(name, "").strip() for name in ASKED):
        found, advice = "MLFLOW_TRACKING_URI is not set", "set it to http://HOST:PORT, or to sqlite:///PATH/mlflow.db"
        problems.append(Problem(masked(source), found, "the MLflow that has the model", advice))
    raise_if_any(problems, NO_SUCH_MODEL)


def single_fold(path: Path) -> int | None:
    """Return the fold whose folder in a model folder this is; None for other folders."""
    if not is_model_folder(path.parent):
        return None
    return next((fold for fold in folds_in(path.parent) if path.name == f"fold_{fold}"), None)


def no_such_model(source: str) -> ProblemsFound:
    """Return the error for a MODEL that is none."""
    path = Path(source)
    found = "a folder without experiment.yaml, plans.json or checkpoint_final.pth" if path.is_dir() else "no folder"
    found = "a file" if path.is_file() else found
    expected = "a run (runs/NAME), a fold (…/fold_0), an nnU-Net model folder, or models:/NAME/VERSION"
    return ProblemsFound(NO_SUCH_MODEL, [Problem(source, found, expected, similar_path(path, "correct the path"))])


def chosen_folds(folds: Sequence[int] | None, finished: Sequence[int], source: str) -> tuple[int, ...]:
    """Return the folds to predict with: those that are asked for, or all that are finished.

    Raises:
        ProblemsFound: one is not finished, or none is.
    """
    missing = [fold for fold in folds or () if fold not in finished]
    if not finished or missing:
        found = f"fold {', '.join(map(str, missing))}" if missing else "no finished fold"
        expected = f"finished folds: {', '.join(map(str, finished)) or 'at least one'}"
        problem = Problem(source, found, expected, "choose among these, or train it (uncseg cross-validate)")
        raise ProblemsFound("There is nothing to predict with.", [problem])
    return tuple(sorted(set(folds))) if folds else tuple(finished)


def require_model(source: str, folds: Sequence[int] | None, overrides: list[str] | None) -> Task | None:
    """Refuse a MODEL that is no model, or lacks a fold; what lies in MLflow is not looked for.

    Returns:
        The task that it was trained for; None where only its weights tell it.

    Raises:
        ProblemsFound: saying why.
    """
    path = Path(source).resolve()
    if is_in_mlflow(source):
        require_stored_name(source)
        settings_of_model(overrides)
    elif (path / "experiment.yaml").is_file():
        run, experiment = open_existing_run(path, overrides, edited=lambda _: None)  # the command warns of it
        chosen_folds(folds, recorded_folds(experiment, run), source)
        return experiment.dataset.task
    elif single_fold(path) is not None:
        settings_of_model(overrides)
    elif is_model_folder(path):
        settings_of_model(overrides)
        chosen_folds(folds, folds_in(path), source)
    else:
        raise no_such_model(source)
    return None
