"""What ``uncseg predict`` takes as MODEL: a run, a fold of it, an nnU-Net model folder, or one in MLflow."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from uncseg.cluster.environment import refuse_kept_address
from uncseg.config.reading import split_advice
from uncseg.config.rules import problems_of_estimators
from uncseg.config.sections import Evaluation, Resources
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.estimators.registry import CROSS_FITTED, ESTIMATORS, LEARNT
from uncseg.evaluation.expectation import review_thresholds, thresholds_in
from uncseg.layout import folds_in, is_model_folder
from uncseg.method.checkpoints import FINAL, DamagedCheckpoint, require_whole
from uncseg.method.inference import model_folder
from uncseg.method.inference.learnt_failures import LearntFailures
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.settings import TrainerSettings
from uncseg.runs.named_models import (
    NO_SUCH_MODEL,
    chosen_folds,
    is_in_mlflow,
    no_such_model,
    settings_of_model,
    single_fold,
)
from uncseg.runs.own_folds import foreign_folds_in
from uncseg.runs.run_opening import open_existing_run, recorded_folds, warn_of, warn_of_changes
from uncseg.table_files import read_table
from uncseg.tasks.task import Task
from uncseg.tracking.stored_models import download, find_stored

NO_MATTER = "its networks predict new cases all the same"


@dataclass(frozen=True)
class PredictionModel:
    """Networks to predict with, and how they are applied."""

    folder: ModelFolder
    folds: tuple[int, ...]
    """Folds whose predictions are averaged."""
    resources: Resources
    evaluation: Evaluation
    review_below: Mapping[str, float]
    """By map: expected Dice of the main region below which a case is to be reviewed. Of a map that is missing: 0.8."""
    members: tuple[ModelFolder, ...] = ()
    """The other networks of each fold, if a deep ensemble is chosen."""

    @property
    def task(self) -> Task:
        """What the networks segment."""
        return self.folder.task


def find_model(
    source: str,
    output: Path,
    folds: Sequence[int] | None = None,
    overrides: list[str] | None = None,
    trust: bool = False,
) -> PredictionModel:
    """Find the networks that MODEL names.

    Args:
        source: folder of a run, of a fold (fold_N), an nnU-Net model folder, or an MLflow model
            (models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN_ID/NAME; on the server that MLFLOW_TRACKING_URI names).
        output: folder in which an MLflow model is kept, so that every node sees it.
        folds: folds to average; None: all that are finished.
        overrides: ``FIELD=VALUE`` of a run's experiment; for other models of resources and evaluation only.
        trust: let checkpoints, and the classes that plans name, run code of their own.

    Raises:
        ProblemsFound: the source is none of these, or lacks a fold.
    """
    if is_in_mlflow(source):
        return _from_folder(_download(source, output), source, folds, overrides, trust)
    path = Path(source).resolve()
    if (path / "experiment.yaml").is_file():
        return _from_run(path, folds, overrides, trust)
    if (fold := single_fold(path)) is not None:
        return _from_folder(path.parent, source, [fold], overrides, trust)
    if is_model_folder(path):
        return _from_folder(path, source, folds, overrides, trust)
    raise no_such_model(source)


def _from_run(root: Path, folds: Sequence[int] | None, overrides: list[str] | None, trust: bool) -> PredictionModel:
    run, experiment = open_existing_run(root, overrides, edited=partial(warn_of, why=NO_MATTER))
    refuse_kept_address(run.root, experiment.resources.ray_address, overrides)
    chosen = chosen_folds(folds, recorded_folds(experiment, run), str(root))
    warn_of_changes(run, experiment, NO_MATTER)
    configuration, evaluation = experiment.plan.configuration, experiment.evaluation
    folder = ModelFolder(run.model, configuration)
    if not trust:
        folder.require_known_classes()
    review_below = review_thresholds(read_table(run.tables, "per_case"), experiment.dataset.task)
    others = range(1, experiment.training.members if evaluation.estimators.combine_members else 1)
    members = tuple(ModelFolder(run.member(number).model, configuration) for number in others)
    require_whole(model.checkpoint(fold) for model in (folder, *members) for fold in chosen)
    for model in (folder, *members):
        model.require_own_files(chosen)
    _require_learnt(evaluation, folder, chosen, str(root))
    return PredictionModel(folder, chosen, experiment.resources, evaluation, review_below, members)


def _from_folder(
    path: Path, source: str, folds: Sequence[int] | None, overrides: list[str] | None, trust: bool
) -> PredictionModel:
    chosen = chosen_folds(folds, folds_in(path), source)
    for change in foreign_folds_in(path, chosen):
        warn_of(change, NO_MATTER)
    folder = model_folder.open_model_folder(path, trust)
    description = model_folder.read_description(path)
    sections = settings_of_model(overrides, description.get("evaluation"))
    _require_trained_for(sections.evaluation, folder, source)
    review_below = thresholds_in(description)
    require_whole(map(folder.checkpoint, chosen))
    folder.require_own_files(chosen)
    _require_learnt(sections.evaluation, folder, chosen, source)
    return PredictionModel(folder, chosen, sections.resources, sections.evaluation, review_below)


def _require_trained_for(evaluation: Evaluation, folder: ModelFolder, source: str) -> None:
    """Refuse estimators that a network was not trained for; a run's experiment is checked when it is loaded."""
    settings = TrainerSettings.from_plans(folder.plans_manager.plans)
    model = settings.model.model_copy(update={"uncertainty": folder.has_head})
    wrong = problems_of_estimators(evaluation, model, settings.training)
    wrong += [
        f"evaluation.estimators.{name} needs all members, and a model has one network per fold; "
        "give the run's folder, or remove the estimator"
        for name in evaluation.estimators.several_pass
        if ESTIMATORS[name].combines_members and not any(f".{name} " in line for line in wrong)
    ]
    lines = map(split_advice, wrong)
    problems = [Problem(source, what, "what the network was trained for", advice) for what, advice in lines]
    raise_if_any(problems, "The estimators cannot be used.")


def _require_learnt(evaluation: Evaluation, folder: ModelFolder, folds: Sequence[int], source: str) -> None:
    """Refuse maps that a fold has not learnt from failures of the others.

    Raises:
        ProblemsFound: naming the folds.
    """
    advice = "give uncseg evaluate for the run, with --set failures.perceptron=32 for cross_fitted, or remove the map"
    problems = []
    asked = {name: f"evaluation.estimators.one_pass: {name}" for name in evaluation.estimators.one_pass}
    if evaluation.uncertainty is not None:
        asked[evaluation.uncertainty] = f"evaluation.uncertainty: {evaluation.uncertainty}"
    for name in filter(LEARNT.__contains__, asked):
        learnt = {fold: LearntFailures.of(folder, fold) for fold in folds}
        more = name == CROSS_FITTED
        without = [fold for fold, own in learnt.items() if own is None or (more and not own.learnt.learns)]
        if without:
            found = f"{asked[name]}, and fold {', '.join(map(str, without))} has not learnt it"
            problems.append(Problem(source, found, "a map that each fold has", advice))
    raise_if_any(problems, "The estimators cannot be used.")


def _download(uri: str, output: Path) -> Path:
    """Return the model folder of an MLflow model, which is downloaded once into OUTPUT/.model-…"""
    uri, content = find_stored(uri)
    folder = output.resolve() / f".model-{content[:12]}"
    download(uri, folder)
    try:
        require_whole(sorted(folder.rglob(FINAL)))
    except DamagedCheckpoint:  # since it was downloaded
        shutil.rmtree(folder)
        download(uri, folder)
    found = next((file.parent for file in sorted(folder.rglob("plans.json"))), None)
    if found is None or not is_model_folder(found):
        missing = "no plans.json and dataset.json in it"
        problem = Problem(uri, missing, "a model that uncseg logged", "correct the URI")
        raise ProblemsFound(NO_SUCH_MODEL, [problem])
    return found
