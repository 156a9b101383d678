"""What the parts of a sweep say together: whether the search can be made, and whether it can end as it is asked to."""

import math
from pathlib import Path
from statistics import fmean

import yaml

from uncseg.config.experiment import Experiment
from uncseg.errors import Problem
from uncseg.layout import RunFolder
from uncseg.studies.sweep.space import GRID, LISTS, check_field, grid_points, parse_domain
from uncseg.studies.sweep.sweep_file import BaselineConstraint, Constraint, Sweep
from uncseg.tracking.spool import read_history

OPTUNA = ("tpe", "nsga2")


def check_sweep(path: Path, sweep: Sweep, base: Experiment) -> tuple[Sweep, list[Problem]]:
    """Look for everything that would make a sweep fail, or mean something else than it says.

    Args:
        path: of the sweep's file, for the problems.
        sweep: as read.
        base: the experiment that it starts from.

    Returns:
        The sweep, with the baselines of its constraints replaced by their numbers, and every problem.
    """
    problems = _check_folds(path, sweep, base)
    of_space = [problem for field, words in sweep.space.items() for problem in check_field(path, base, field, words)]
    problems += of_space or _check_search(path, sweep)
    problems += _check_metrics(path, sweep, base) + _check_scheduler(path, sweep, base)
    constraints = []
    for number, constraint in enumerate(sweep.constraints):
        resolved, wrong = _resolve(f"{path}: constraints.{number}.baseline", constraint, sweep, base)
        constraints.append(resolved)
        problems += wrong
    return sweep.model_copy(update={"constraints": tuple(constraints)}), problems


def _check_folds(path: Path, sweep: Sweep, base: Experiment) -> list[Problem]:
    problems = []
    promoted = () if sweep.promote is None or sweep.promote.folds == "all" else sweep.promote.folds
    for field, folds in (("folds", sweep.folds), ("promote.folds", promoted)):
        for fold in folds:
            if fold not in range(base.split.folds):
                expected = f"folds from 0 to {base.split.folds - 1}"
                problems.append(Problem(f"{path}: {field}", str(fold), expected, "correct the list"))
        if len(set(folds)) < len(folds):
            problems.append(Problem(f"{path}: {field}", str(list(folds)), "each fold once", "correct the list"))
    if base.training.members > 1:
        found, advice = f"{base.training.members} networks a fold", "write training.members: 1 in overrides"
        problems.append(Problem(f"{path}: training.members", found, "one: a trial is judged by a network", advice))
    if sweep.promote is not None and sweep.promote.top > sweep.trials:
        found, expected = str(sweep.promote.top), f"at most the number of trials, {sweep.trials}"
        problems.append(Problem(f"{path}: promote.top", found, expected, "promote fewer, or write more trials"))
    return problems


def _check_search(path: Path, sweep: Sweep) -> list[Problem]:
    words = {field: parse_domain(words) for field, words in sweep.space.items()}
    gridded = [field for field, (word, _) in words.items() if word == GRID]
    kind, problems = sweep.search.type, []
    if kind in OPTUNA and gridded:
        found, advice = f"grid_search for {', '.join(gridded)}", "write choice, or search: {type: random}"
        problems.append(Problem(f"{path}: search.type", found, f"ranges or choice, where {kind} can choose", advice))
    for field, (word, given) in words.items():
        if kind in OPTUNA and word == "qloguniform":
            expected = f"a word that {kind} knows"
            problems.append(Problem(f"{path}: space.{field}", word, expected, "write loguniform, or lograndint"))
        if kind in OPTUNA and word in LISTS and any(isinstance(value, list | dict) for value in given):
            found, expected = str(given), f"single values, where {kind} chooses"
            problems.append(Problem(f"{path}: space.{field}", found, expected, "name one field for each part"))
    if kind == "grid" and len(gridded) < len(words):
        found = ", ".join(field for field in words if field not in gridded) + " without grid_search"
        advice = "write grid_search: [VALUE, …] for each, or search: {type: random}"
        problems.append(Problem(f"{path}: search.type", found, "a list of values for every field", advice))
    points = grid_points(sweep)
    if points > sweep.trials:
        advice = f"write trials: {points} or more, or fewer values in grid_search, or a range and search: {{type: tpe}}"
        found = f"{points} points of the grid"
        problems.append(Problem(f"{path}: trials", found, f"at most {sweep.trials}, as trials says", advice))
    if kind == "nsga2" and len(sweep.objectives) == 1:
        advice = "write search: {type: tpe}, or a second objective"
        problems.append(Problem(f"{path}: search.type", "nsga2 for one objective", "several objectives", advice))
    if kind == "nsga2" and sweep.search.population > sweep.trials:
        found, expected = str(sweep.search.population), f"at most the number of trials, {sweep.trials}"
        problems.append(Problem(f"{path}: search.population", found, expected, "write fewer, or more trials"))
    return problems


def _check_metrics(path: Path, sweep: Sweep, base: Experiment) -> list[Problem]:
    from uncseg.method.training.metric_names import epoch_metric_names

    known, problems = epoch_metric_names(base), []
    parts = [(f"objectives.{number}", one.metric) for number, one in enumerate(sweep.objectives)]
    parts += [(f"constraints.{number}", one.metric) for number, one in enumerate(sweep.constraints)]
    for field, metric in parts:
        if metric not in known:
            group = metric.partition("/")[0]
            expected = "one of " + ", ".join(name for name in known if name.startswith(f"{group}/"))
            problems.append(Problem(f"{path}: {field}.metric", f"{metric}, which no fold reports", expected, "correct"))
    metrics = [one.metric for one in sweep.objectives]
    if len(set(metrics)) < len(metrics):
        problems.append(Problem(f"{path}: objectives", ", ".join(metrics), "each metric once", "remove one"))
    return problems


def _check_scheduler(path: Path, sweep: Sweep, base: Experiment) -> list[Problem]:
    scheduler, problems = sweep.scheduler, []
    metrics = [one.metric for one in sweep.objectives]
    if scheduler.type == "fifo":
        return []
    if scheduler.metric is None and len(metrics) > 1:
        advice = f"write scheduler.metric: {metrics[0]}, say, or scheduler: {{type: fifo}}"
        found = f"{scheduler.type} with {len(metrics)} objectives"
        problems.append(Problem(f"{path}: scheduler.type", found, "one objective to compare trials by", advice))
    if scheduler.metric is not None and scheduler.metric not in metrics:
        expected = "one of the objectives: " + ", ".join(metrics)
        problems.append(Problem(f"{path}: scheduler.metric", scheduler.metric, expected, "write one of them"))
    if scheduler.grace_epochs >= base.training.epochs:
        expected = f"fewer than training.epochs, {base.training.epochs}: no trial would ever be stopped"
        advice = "write fewer, or scheduler: {type: fifo}"
        problems.append(Problem(f"{path}: scheduler.grace_epochs", str(scheduler.grace_epochs), expected, advice))
    return problems


def _resolve(where: str, constraint: Constraint, sweep: Sweep, base: Experiment) -> tuple[Constraint, list[Problem]]:
    """The constraint with the numbers for its baseline."""
    if constraint.baseline is None:
        return constraint, []
    run = RunFolder(base.storage.path / constraint.baseline)
    if not run.experiment.is_file():
        advice = "train it first (uncseg cross-validate), or write at_least: NUMBER"
        return constraint, [Problem(where, f"no run in {run.root}", "a finished run of this name", advice)]
    problems = []
    epochs = yaml.safe_load(run.experiment.read_text(encoding="utf-8"))["training"]["epochs"]
    if epochs != base.training.epochs:
        found, expected = f"a run of {epochs} epochs", f"{base.training.epochs}, as the trials: else its end is another"
        problems.append(Problem(where, found, expected, f"train it with --set training.epochs={base.training.epochs}"))
    values: dict[int, float] = {}
    for fold in sweep.promoted_folds(base):
        history = read_history(run.spool, fold)
        value = history.epochs[history.last_epoch].metrics.get(constraint.metric) if history.epochs else None
        if history.state != "finished" or value is None or not math.isfinite(value):
            found = f"fold {fold} {history.state}, {constraint.metric}: {value}"
            expected = "the sweep's folds finished, those of promote included, with that metric"
            problems.append(Problem(where, found, expected, "train them first"))
        else:
            values[fold] = value
    if problems:
        return constraint, problems
    screened = fmean(values[fold] for fold in sweep.folds) - constraint.tolerance
    promoted = fmean(values.values()) - constraint.tolerance
    return BaselineConstraint(metric=constraint.metric, at_least=screened, promoted_at_least=promoted), []
