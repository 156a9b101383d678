"""Loading a sweep: its file, and whether its parts fit each other and the base experiment.

sweep, base = load_sweep(Path("experiments/sweeps/demo.yaml"))
"""

import math
from pathlib import Path
from statistics import fmean

import yaml

from uncseg.config.experiment import Experiment
from uncseg.errors import Problem
from uncseg.layout import RunFolder
from uncseg.studies.load_study import load_study, raise_problems
from uncseg.studies.sweep.space import GRID, LISTS, check_field, grid_points, parse_domain
from uncseg.studies.sweep.sweep_file import BaselineConstraint, Constraint, Sweep
from uncseg.tracking.spool import read_history

OPTUNA = ("tpe", "nsga2")


def load_sweep(path: Path, overrides: list[str] | None = None) -> tuple[Sweep, Experiment]:
    """Read and check a sweep file and the experiment that it starts from.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` for the base experiment, applied after the sweep's own.

    Returns:
        The sweep, with the baselines of its constraints replaced by their numbers, and the base with the overrides of
        both.

    Raises:
        ProblemsFound: with every problem of the file at once; those of the base first, since the space is checked
            against it.
    """
    sweep, base = load_study(path, Sweep, overrides)
    problems = _check_folds(sweep, base)
    problems_of_space = [p for field, domain in sweep.space.items() for p in check_field(base, field, domain)]
    problems += problems_of_space or _check_search(sweep)
    problems += _check_metrics(sweep, base) + _check_scheduler(sweep, base)
    constraints = []
    for number, constraint in enumerate(sweep.constraints):
        resolved, found = _resolve(f"constraints.{number}.baseline", constraint, sweep, base)
        constraints.append(resolved)
        problems += found
    raise_problems(path, sweep, problems)
    return sweep.model_copy(update={"constraints": tuple(constraints)}), base


def _check_folds(sweep: Sweep, base: Experiment) -> list[Problem]:
    problems = []
    promoted = () if sweep.promote is None or sweep.promote.folds == "all" else sweep.promote.folds
    for field, folds in (("folds", sweep.folds), ("promote.folds", promoted)):
        expected = f"folds from 0 to {base.split.folds - 1}"
        wrong = [fold for fold in folds if fold not in range(base.split.folds)]
        problems += [Problem(field, str(fold), expected, "correct the list") for fold in wrong]
        if len(set(folds)) < len(folds):
            problems.append(Problem(field, str(list(folds)), "each fold once", "correct the list"))
    if base.training.members > 1:
        found, advice = f"{base.training.members} networks per fold", "write training.members: 1 in overrides"
        problems.append(Problem("training.members", found, "one: a trial is judged by one network", advice))
    if sweep.promote is not None and sweep.promote.top > sweep.trials:
        found, expected = str(sweep.promote.top), f"at most the number of trials, {sweep.trials}"
        problems.append(Problem("promote.top", found, expected, "promote fewer, or write more trials"))
    return problems


def _check_search(sweep: Sweep) -> list[Problem]:
    domains = {field: parse_domain(domain) for field, domain in sweep.space.items()}
    gridded = [field for field, (name, _) in domains.items() if name == GRID]
    kind, problems = sweep.search.type, []
    if kind in OPTUNA:
        if gridded:
            found, advice = f"grid_search for {', '.join(gridded)}", "write choice, or search: {type: random}"
            problems.append(Problem("search.type", found, f"ranges or choice, from which {kind} can choose", advice))
        for field, (name, arguments) in domains.items():
            if name == "qloguniform":
                expected, advice = f"a domain that {kind} supports", "write loguniform, or lograndint"
                problems.append(Problem(f"space.{field}", name, expected, advice))
            if name in LISTS and any(isinstance(value, list | dict) for value in arguments):
                expected, advice = f"single values, from which {kind} can choose", "name one field for each part"
                problems.append(Problem(f"space.{field}", str(arguments), expected, advice))
    if kind == "grid" and len(gridded) < len(domains):
        found = ", ".join(field for field in domains if field not in gridded) + " without grid_search"
        advice = "write grid_search: [VALUE, …] for each, or search: {type: random}"
        problems.append(Problem("search.type", found, "a list of values for every field", advice))
    points = grid_points(sweep.space)
    if points > sweep.trials:
        advice = f"write trials: {points} or more, or fewer values in grid_search, or a range and search: {{type: tpe}}"
        found = f"{points} points of the grid"
        problems.append(Problem("trials", found, f"at most {sweep.trials}, as trials says", advice))
    if kind == "nsga2" and len(sweep.objectives) == 1:
        advice = "write search: {type: tpe}, or a second objective"
        problems.append(Problem("search.type", "nsga2 for one objective", "several objectives", advice))
    if kind == "nsga2" and sweep.search.population > sweep.trials:
        found, expected = str(sweep.search.population), f"at most the number of trials, {sweep.trials}"
        problems.append(Problem("search.population", found, expected, "write fewer, or more trials"))
    return problems


def _check_metrics(sweep: Sweep, base: Experiment) -> list[Problem]:
    from uncseg.method.training.epoch_metrics import epoch_metric_names

    known, problems = epoch_metric_names(base), []
    judged = {f"objectives.{number}": objective.metric for number, objective in enumerate(sweep.objectives)}
    judged |= {f"constraints.{number}": constraint.metric for number, constraint in enumerate(sweep.constraints)}
    for field, metric in judged.items():
        if metric not in known:
            group = metric.partition("/")[0]
            expected = "one of " + ", ".join(name for name in known if name.startswith(f"{group}/"))
            found = f"{metric}, which no fold reports"
            problems.append(Problem(f"{field}.metric", found, expected, "correct the name"))
    metrics = [objective.metric for objective in sweep.objectives]
    if len(set(metrics)) < len(metrics):
        problems.append(Problem("objectives", ", ".join(metrics), "each metric once", "remove one"))
    return problems


def _check_scheduler(sweep: Sweep, base: Experiment) -> list[Problem]:
    scheduler, problems = sweep.scheduler, []
    metrics = [objective.metric for objective in sweep.objectives]
    if scheduler.type == "fifo":
        return []
    if scheduler.metric is None and len(metrics) > 1:
        advice = f"write scheduler.metric: {metrics[0]}, for example, or scheduler: {{type: fifo}}"
        found = f"{scheduler.type} with {len(metrics)} objectives"
        problems.append(Problem("scheduler.type", found, "one objective to compare trials by", advice))
    if scheduler.metric is not None and scheduler.metric not in metrics:
        expected = "one of the objectives: " + ", ".join(metrics)
        problems.append(Problem("scheduler.metric", scheduler.metric, expected, "write one of them"))
    if scheduler.grace_epochs >= base.training.epochs:
        expected = f"fewer than training.epochs, {base.training.epochs}: otherwise no trial is ever stopped"
        advice = "write fewer, or scheduler: {type: fifo}"
        problems.append(Problem("scheduler.grace_epochs", str(scheduler.grace_epochs), expected, advice))
    return problems


def _resolve(where: str, constraint: Constraint, sweep: Sweep, base: Experiment) -> tuple[Constraint, list[Problem]]:
    """Return the constraint with numbers in place of its baseline, and what is wrong with the baseline."""
    if constraint.baseline is None:
        return constraint, []
    run = RunFolder(base.storage.path / constraint.baseline)
    if not run.experiment.is_file():
        advice = "train it first (uncseg cross-validate), or write at_least: NUMBER"
        return constraint, [Problem(where, f"no run in {run.root}", "a finished run of this name", advice)]
    problems = []
    epochs = yaml.safe_load(run.experiment.read_text(encoding="utf-8"))["training"]["epochs"]
    if epochs != base.training.epochs:
        found, expected = f"a run of {epochs} epochs", f"{base.training.epochs}, as many as the trials have"
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
