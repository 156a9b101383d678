"""The finished run that a training needs, and a check that it fits: an error network judges its segmentation, or its
networks or failures teach the head.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uncseg.config.experiment import Experiment, saved_experiment
from uncseg.config.rules import problems_of_judged
from uncseg.errors import DamagedFile, Problem, ProblemsFound, raise_if_any
from uncseg.files import read_json
from uncseg.layout import FAILURES_RECORD, FINAL_CHECKPOINT, PreparedFolder, RunFolder
from uncseg.runs.own_folds import foreign_folds
from uncseg.runs.run_data import changed_data, read_data
from uncseg.runs.run_opening import located, read_experiment
from uncseg.section import first_wrong

TITLE = "The run cannot be trained: it needs another one."
LEVELS = 4
"""Levels above a run's folder that are searched: ensemble members and a sweep's trials lie deeper than runs."""
SAME_IMAGES = ("spacing", "normalization_schemes", "use_mask_for_norm")
"""Entries of a configuration of nnU-Net's plans that say what its images look like."""
LEAST_MEMBERS = 2
"""Networks of which a mean p says more than the network's own."""
SAME_NETWORK = ("architecture", *SAME_IMAGES)


@dataclass(frozen=True)
class Need:
    """A run that an experiment names, and what it is needed for."""

    field: str
    """The field that names it."""
    run: str
    source: str
    """``judged``, or ``memory.source``: what teaches the head."""

    @property
    def same(self) -> tuple[str, ...]:
        """What both plans have to share."""
        return SAME_NETWORK if self.source == "judged" else SAME_IMAGES


def need_of(experiment: Experiment) -> Need | None:
    """Return which run an experiment needs; None: it stands alone."""
    if (judges := experiment.model.error_network) is not None:
        return Need("model.error_network.run", judges.run, "judged")
    if (run := experiment.memory.run) is not None:
        return Need("memory.run", run, experiment.memory.source)
    return None


def find_run(root: Path, need: Need) -> RunFolder:
    """Return the folder of the run that is needed, beside the run at ``root``.

    Raises:
        ProblemsFound: there is no such run.
    """
    for folder in list(root.absolute().parents)[:LEVELS]:
        run = RunFolder(folder / need.run)
        if run.experiment.is_file() and run.root != root.absolute():
            return run
    found = f"{need.run}, and no such run in {root.absolute().parent}"
    advice = "train it first with uncseg cross-validate, in the same storage.path"
    raise ProblemsFound(TITLE, [Problem(need.field, found, "the name of a finished run", advice)])


def _dependent_folds(experiment: Experiment, folds: Sequence[int]) -> list[int]:
    """Return the folds for which the other run is needed.

    An error network's own checkpoints hold the network that it judges; a head needs the other run until its fold has
    ended.
    """
    need, own = need_of(experiment), RunFolder(experiment.run_folder)
    if need is None:
        return []
    members = [own.member(number) for number in range(experiment.training.members)]
    pattern = "checkpoint_*.pth" if need.source == "judged" else FINAL_CHECKPOINT
    return [fold for fold in folds if not all(any(run.fold(fold).glob(pattern)) for run in members)]


def require_needed_run(experiment: Experiment, folds: Sequence[int]) -> None:
    """Check the run that a training needs, if there is one, as far as its settings and files tell.

    Raises:
        ProblemsFound: there is no such run, it lacks a fold, or does not fit.
    """
    if (need := need_of(experiment)) and (folds := _dependent_folds(experiment, folds)):
        raise_if_any(_problems_of_run(experiment, need, folds), TITLE)


def _problems_of_run(experiment: Experiment, need: Need, folds: Sequence[int]) -> list[Problem]:
    try:
        run = find_run(experiment.run_folder, need)
        other = saved_experiment(read_experiment(run))
    except ProblemsFound as error:
        return error.problems
    except ValidationError as error:
        expected, advice = "an experiment of this version of uncseg", "train it again under another name"
        found = f"{run.experiment}, which is not valid: {first_wrong(error)}"
        return [Problem(need.field, found, expected, advice)]
    judges, needed = need.source == "judged", other.training.members if need.source == "members" else 1
    problems = problems_of_judged(other.model, experiment.model, run.root.name) if judges else []
    ours, theirs = experiment.dataset.task, other.dataset.task
    if not ours.same_meaning(theirs):
        found = f"{run.root.name}, whose task {theirs.name} has other labels, regions or another main region"
        advice = "give both the same dataset.task"
        problems.append(Problem(need.field, found, f"a run of this task, {ours.name}", advice))
    changes = changed_data(run, located(other, run.root)) + foreign_folds(run, folds, needed)
    problems += [replace(change, where=f"{need.field}: {run.root.name}, {change.where}") for change in changes]
    if need.source == "members" and needed < LEAST_MEMBERS:
        found, expected = f"{run.root.name}, which has one network per fold", "a run of several members"
        advice = "set its `training.members` to 5, and train it"
        problems.append(Problem(need.field, found, expected, advice))
    return problems + _missing(need, run, needed, folds)


def _missing(need: Need, run: RunFolder, members: int, folds: Sequence[int]) -> list[Problem]:
    """Return a problem for folds that lack what is needed of them, of so many networks."""
    if need.source == "cross_fitted":
        lacking = [fold for fold in folds if not has_learnt(run, fold)]
        what = "what the folds learn from each other's failures"
        advice = f"set `failures.perceptron` to 32 in {run.root.name} unless it has another learner, and give its "
        advice += "uncseg cross-validate again"
    else:
        needed = [run.member(number) for number in range(members)]
        lacking = [fold for fold in folds if not all(member.final_checkpoint(fold).is_file() for member in needed)]
        what, advice = "a finished fold", "finish it: --folds "
        advice += ",".join(map(str, lacking))
    if not lacking:
        return []
    found = f"{run.root} without {what} {', '.join(map(str, lacking))}"
    return [Problem(need.field, found, "a run with every fold that is trained here", advice)]


def has_learnt(run: RunFolder, fold: int) -> bool:
    """Return whether a fold has learnt more than calibrated p from the failures of the others."""
    record = run.fold(fold) / FAILURES_RECORD
    if not (record.is_file() and run.learnt_failures(fold).is_file()):
        return False
    with contextlib.suppress(DamagedFile):
        content = read_json(record)
        settings = content.get("settings", {})
        learns = bool(content.get("losses") or settings.get("trees") or settings.get("perceptron"))
        return learns and content.get("fold", fold) == fold
    return False


def require_same_data(experiment: Experiment, folds: Sequence[int], prepared: PreparedFolder) -> None:
    """Check that the run that a training needs has the same split, and was planned for the same network or images.

    Raises:
        ProblemsFound: naming what differs.
    """
    need = need_of(experiment)
    if need is None or not _dependent_folds(experiment, folds):
        return
    run = find_run(experiment.run_folder, need)
    problems = []
    data = read_data(run)
    theirs = None if data is None else data.digests["split"]
    ours = read_json(prepared.done)["digests"]["split"]
    if theirs != ours:
        found, expected = f"{run.root.name}, trained on split {theirs}", f"a run of this split, {ours}"
        advice = "give both the same cases and split: its folds were trained on cases that are new here"
        problems.append(Problem(need.field, found, expected, advice))
    configuration = experiment.plan.configuration
    files = run.model / "plans.json", prepared.plans
    planned = [_configuration(file, configuration, need.same) for file in files]
    if planned[0] is None:
        found, advice = f"{run.root.name}, which was not planned as {configuration}", "plan both alike"
        problems.append(Problem(need.field, found, f"a run of {configuration}", advice))
    elif planned[0] != planned[1]:
        different = [key for key in need.same if planned[0][key] != planned[1][key]]  # type: ignore[index]
        found, expected = f"another {', '.join(different)} than {run.root.name}'s", f"the same {', '.join(need.same)}"
        problems.append(Problem("plan", found, expected, f"copy the plan section of {run.experiment}"))
    raise_if_any(problems, TITLE)


def _configuration(plans: Path, name: str, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return what two plans have to share, or None if there is no such configuration."""
    configuration = read_json(plans)["configurations"].get(name)
    return None if configuration is None else {key: configuration.get(key) for key in keys}
