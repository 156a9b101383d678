"""The finished run whose segmentation an error network judges: finding it, and checking that it fits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uncseg.config.experiment import Experiment
from uncseg.config.rules import problems_of_judged
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.runs.own_folds import foreign_folds
from uncseg.runs.run_data import changed_data, read_data
from uncseg.runs.run_opening import located, read_experiment

FIELD = "model.error_network.run"
TITLE = "The error network cannot be trained."
LEVELS = 4
"""Levels above a run's folder that are searched: ensemble members and a sweep's trials lie deeper than runs."""
SAME_PLAN = ("architecture", "spacing", "normalization_schemes", "use_mask_for_norm")
"""Entries of a configuration of nnU-Net's plans that both runs share: the network, and what its images look like."""


def find_judged_run(root: Path, name: str) -> RunFolder:
    """Return the folder of the run called ``name`` beside the run at ``root``.

    Raises:
        ProblemsFound: there is no such run.
    """
    for folder in list(root.absolute().parents)[:LEVELS]:
        run = RunFolder(folder / name)
        if run.experiment.is_file() and run.root != root.absolute():
            return run
    found = f"{name}, and no such run in {root.absolute().parent}"
    advice = "train it first with uncseg cross-validate, in the same storage.path"
    raise ProblemsFound(TITLE, [Problem(FIELD, found, "the name of a finished run", advice)])


def _dependent_folds(experiment: Experiment, folds: Sequence[int]) -> list[int]:
    """Return the folds that have to load the other run's network: later their own checkpoints hold it."""
    if experiment.model.error_network is None:
        return []
    own = RunFolder(experiment.run_folder)
    members = [own.member(number) for number in range(experiment.training.members)]
    return [fold for fold in folds if not all(any(run.fold(fold).glob("checkpoint_*.pth")) for run in members)]


def require_judged_run(experiment: Experiment, folds: Sequence[int]) -> None:
    """Check the run that an error network judges, if there is one, as far as its settings and files tell.

    Folds that have begun no longer need it.

    Raises:
        ProblemsFound: there is no such run, it lacks a fold, or its network is another one.
    """
    if folds := _dependent_folds(experiment, folds):
        raise_if_any(_problems_of_run(experiment, folds), TITLE)


def _problems_of_run(experiment: Experiment, folds: Sequence[int]) -> list[Problem]:
    assert experiment.model.error_network is not None
    try:
        run = find_judged_run(experiment.run_folder, experiment.model.error_network.run)
        judged = Experiment.model_validate(read_experiment(run))
    except ProblemsFound as error:
        return error.problems
    except ValidationError:
        expected, advice = "an experiment of this version of uncseg", "train it again under another name"
        return [Problem(FIELD, f"{run.experiment}, which is not valid", expected, advice)]
    problems = problems_of_judged(judged.model, experiment.model, run.root.name)
    ours, theirs = experiment.dataset.task, judged.dataset.task
    if not ours.same_meaning(theirs):
        found = f"{run.root.name}, whose task {theirs.name} has other labels, regions or another main region"
        problems.append(Problem(FIELD, found, f"a run of this task, {ours.name}", "give both the same dataset.task"))
    changes = changed_data(run, located(judged, run.root)) + foreign_folds(run, folds)
    problems += [replace(change, where=f"{FIELD}: {run.root.name}, {change.where}") for change in changes]
    missing = [fold for fold in folds if not run.final_checkpoint(fold).is_file()]
    if missing:
        names = ", ".join(map(str, missing))
        found, advice = f"{run.root} without a finished fold {names}", f"finish it: --folds {names.replace(' ', '')}"
        problems.append(Problem(FIELD, found, "a run with every fold that is trained here", advice))
    return problems


def require_same_data(experiment: Experiment, folds: Sequence[int], prepared: PreparedFolder) -> None:
    """Check that the run that an error network judges has the same split and was planned with the same network.

    Raises:
        ProblemsFound: naming what differs.
    """
    if not _dependent_folds(experiment, folds):
        return
    assert experiment.model.error_network is not None
    run = find_judged_run(experiment.run_folder, experiment.model.error_network.run)
    problems = []
    data = read_data(run)
    theirs = None if data is None else data.digests["split"]
    ours = read_json(prepared.done)["digests"]["split"]
    if theirs != ours:
        found, expected = f"{run.root.name}, trained on split {theirs}", f"a run of this split, {ours}"
        advice = "give both the same cases and split: its folds were trained on cases that are judged here"
        problems.append(Problem(FIELD, found, expected, advice))
    configuration = experiment.plan.configuration
    planned = [_configuration(file, configuration) for file in (run.model / "plans.json", prepared.plans)]
    if planned[0] is None:
        found, advice = f"{run.root.name}, which was not planned as {configuration}", "plan both alike"
        problems.append(Problem(FIELD, found, f"a run of {configuration}", advice))
    elif planned[0] != planned[1]:
        different = [key for key in SAME_PLAN if planned[0][key] != planned[1][key]]  # type: ignore[index]
        found, expected = f"another {', '.join(different)} than {run.root.name}'s", "the same network and images"
        problems.append(Problem("plan", found, expected, f"copy the plan section of {run.experiment}"))
    raise_if_any(problems, TITLE)


def _configuration(plans: Path, name: str) -> dict[str, Any] | None:
    """Return what two plans have to share, or None if there is no such configuration."""
    configuration = read_json(plans)["configurations"].get(name)
    return None if configuration is None else {key: configuration.get(key) for key in SAME_PLAN}
