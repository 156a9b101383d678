"""The finished run whose segmentation an error network judges: where it lies, and whether it can be judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from uncseg.config.experiment import Experiment
from uncseg.config.rules import problems_of_judged
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.tracking.manifest import read_manifest

FIELD = "model.error_network.run"
TITLE = "The error network cannot be trained."
ABOVE = 4
"""Levels above a run's folder that are looked in: a member of an ensemble and a trial of a sweep lie deeper."""
ALIKE = ("architecture", "spacing", "normalization_schemes", "use_mask_for_norm")
"""Entries of a configuration of nnU-Net's plans: the network, and what its images look like."""


def find_judged_run(root: Path, of: str) -> RunFolder:
    """The folder of the run of that name, beside a run's own.

    Raises:
        ProblemsFound: where there is none.
    """
    for folder in list(root.absolute().parents)[:ABOVE]:
        run = RunFolder(folder / of)
        if run.experiment.is_file() and run.root != root.absolute():
            return run
    found = f"{of}, and no such run in {root.absolute().parent}"
    advice = "train it first with uncseg cross-validate, in the same storage.path"
    raise ProblemsFound(TITLE, [Problem(FIELD, found, "the name of a finished run", advice)])


def _folds_in_need(experiment: Experiment, folds: Sequence[int]) -> list[int]:
    """Folds that have to load the other run's network: their own checkpoints, once there, hold it."""
    if experiment.model.error_network is None:
        return []
    own = RunFolder(experiment.run_folder)
    members = [own.member(number) for number in range(experiment.training.members)]
    return [fold for fold in folds if not all(any(run.fold(fold).glob("checkpoint_*.pth")) for run in members)]


def require_judged_run(experiment: Experiment, folds: Sequence[int]) -> None:
    """Look at the run that an error network judges, as far as its settings and files tell.

    Args:
        experiment: with or without an error network.
        folds: to be trained; those that have begun need the other run no more.

    Raises:
        ProblemsFound: where there is no such run, it lacks a fold, or its network is another one.
    """
    folds = _folds_in_need(experiment, folds)
    problems = _problems_of_run(experiment, folds) if folds else []
    if problems:
        raise ProblemsFound(TITLE, problems)


def _problems_of_run(experiment: Experiment, folds: Sequence[int]) -> list[Problem]:
    assert experiment.model.error_network is not None
    try:
        run = find_judged_run(experiment.run_folder, experiment.model.error_network.run)
        judged = Experiment.model_validate(yaml.safe_load(run.experiment.read_text(encoding="utf-8")))
    except ProblemsFound as error:
        return error.problems
    except ValidationError:
        expected, advice = "an experiment of this version", "train it again under another name"
        return [Problem(FIELD, f"{run.experiment}, which is no experiment any more", expected, advice)]
    problems = problems_of_judged(judged.model, experiment.model, run.root.name)
    missing = [fold for fold in folds if not run.final_checkpoint(fold).is_file()]
    if missing:
        names = ", ".join(map(str, missing))
        found, advice = f"{run.root} without a finished fold {names}", f"finish it: --folds {names.replace(' ', '')}"
        problems.append(Problem(FIELD, found, "a run with every fold that is trained here", advice))
    return problems


def require_same_data(experiment: Experiment, folds: Sequence[int], prepared: PreparedFolder) -> None:
    """Look whether the run that an error network judges was trained on the same split, and planned the same network.

    Args:
        experiment, folds: as :func:`require_judged_run` takes them.
        prepared: the experiment's.

    Raises:
        ProblemsFound: naming what differs.
    """
    if not _folds_in_need(experiment, folds):
        return
    assert experiment.model.error_network is not None
    run = find_judged_run(experiment.run_folder, experiment.model.error_network.run)
    problems = []
    theirs, ours = (
        read_manifest(run.manifest).get("digests", {}).get("split"),
        read_json(prepared.done)["digests"]["split"],
    )
    if theirs != ours:
        found, expected = f"{run.root.name}, trained on split {theirs}", f"a run of this split, {ours}"
        advice = "give both the same cases and split: its folds have seen cases that are judged here"
        problems.append(Problem(FIELD, found, expected, advice))
    configuration = experiment.plan.configuration
    planned = [_configuration(file, configuration) for file in (run.model / "plans.json", prepared.plans)]
    if planned[0] is None:
        found, advice = f"{run.root.name}, which was not planned as {configuration}", "plan both the same"
        problems.append(Problem(FIELD, found, f"a run of {configuration}", advice))
    elif planned[0] != planned[1]:
        different = [key for key in ALIKE if planned[0][key] != planned[1][key]]  # type: ignore[index]
        found, expected = f"another {', '.join(different)} than {run.root.name}'s", "the same network and images"
        problems.append(Problem("plan", found, expected, f"write the plan of {run.experiment}"))
    if problems:
        raise ProblemsFound(TITLE, problems)


def _configuration(plans: Path, name: str) -> dict[str, Any] | None:
    """What two plans have to share; None where there is no such configuration."""
    configuration = read_json(plans)["configurations"].get(name)
    return None if configuration is None else {key: configuration.get(key) for key in ALIKE}
