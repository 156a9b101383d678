"""Loading a sweep: its file, and whether its parts fit each other and the base experiment.

sweep, base = load_sweep(Path("experiments/sweeps/demo.yaml"))
"""

from math import isfinite, nan
from pathlib import Path
from statistics import fmean

from uncseg.config.experiment import Experiment
from uncseg.config.reading import read_saved
from uncseg.errors import ProblemsFound, did_you_mean
from uncseg.files import read_json
from uncseg.layout import RunFolder
from uncseg.method.training.epoch_names import epoch_metric_names
from uncseg.runs.run_opening import differing_settings
from uncseg.studies.load_study import Checks, load_study, read_study, study_record
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.failure_sweep import changed_learning, known_metrics, problems_of_learning
from uncseg.studies.sweep.space import GRID, LISTS, check_field, grid_points, parse_domain
from uncseg.studies.sweep.sweep_file import BaselineConstraint, Constraint, Sweep
from uncseg.tracking.spool import read_history

OPTUNA = ("tpe", "nsga2")
FREE_TO_CHANGE = ("trials_at_once", "keep_checkpoints")
"""Fields that change neither what is searched nor what is found."""


def load_sweep(path: Path, overrides: list[str] | None = None) -> tuple[Sweep, Experiment]:
    """Read and check a sweep file and the experiment that it starts from.

    Returns:
        The sweep, with the baselines of its constraints replaced by their numbers, and the base with the sweep's
        overrides and then ``overrides``, FIELD=VALUE.

    Raises:
        ProblemsFound: with every problem of the file at once; those of the base first, since the space is checked
            against it.
    """
    sweep, base = load_study(path, Sweep, overrides)
    checks = Checks()
    _check_folds(checks, sweep, base)
    wrong_space = [problem for field, domain in sweep.space.items() for problem in check_field(base, field, domain)]
    checks += wrong_space
    if not wrong_space:
        _check_search(checks, sweep)
        checks += problems_of_learning(sweep, base)
    if not sweep.of_failures:
        _check_networks(checks, base)
    _check_scheduler(checks, sweep, base)
    constraints = [_resolved(checks, n, constraint, sweep, base) for n, constraint in enumerate(sweep.constraints)]
    _check_metrics(checks, sweep, base)
    checks.raise_all(path, sweep)
    return sweep.model_copy(update={"constraints": tuple(constraints)}), base


def _check_folds(checks: Checks, sweep: Sweep, base: Experiment) -> None:
    promoted = () if sweep.promote is None or sweep.promote.folds == "all" else sweep.promote.folds
    expected = f"folds from 0 to {base.split.folds - 1}"
    for field, folds in (("folds", sweep.folds), ("promote.folds", promoted)):
        for fold in folds:
            checks.require(fold < base.split.folds and fold >= 0, field, fold, expected, "correct the list")
        checks.require(len(set(folds)) == len(folds), field, list(folds), "each fold once", "correct the list")
    if sweep.promote is not None:
        top, expected = sweep.promote.top, f"at most the number of trials, {sweep.trials}"
        checks.require(top <= sweep.trials, "promote.top", top, expected, "promote fewer, or write more trials")


def _check_networks(checks: Checks, base: Experiment) -> None:
    members = base.training.members
    expected, advice = "one: a trial is judged by one network", "set `training.members` to 1 in overrides"
    checks.require(members == 1, "training.members", f"{members} networks per fold", expected, advice)


def _check_search(checks: Checks, sweep: Sweep) -> None:
    domains = {field: parse_domain(domain) for field, domain in sweep.space.items()}
    gridded = [field for field, (name, _) in domains.items() if name == GRID]
    others = [field for field in domains if field not in gridded]
    kind, points = sweep.search.type, grid_points(sweep.space)
    if kind in OPTUNA:
        expected, advice = f"ranges or choice, from which {kind} can choose", "write choice, or search: {type: random}"
        checks.require(not gridded, "search.type", f"grid_search for {', '.join(gridded)}", expected, advice)
        for field, (name, arguments) in domains.items():
            expected, advice = f"a domain that {kind} supports", "write loguniform, or lograndint"
            checks.require(name != "qloguniform", f"space.{field}", name, expected, advice)
            single = name not in LISTS or not any(isinstance(value, list | dict) for value in arguments)
            expected, advice = f"single values, from which {kind} can choose", "name one field for each part"
            checks.require(single, f"space.{field}", arguments, expected, advice)
    found, expected = f"{', '.join(others)} without grid_search", "a list of values for every field"
    advice = "write grid_search: [VALUE, …] for each, or search: {type: random}"
    checks.require(kind != "grid" or not others, "search.type", found, expected, advice)
    found, expected = f"{points} points of the grid", f"at most {sweep.trials}, as trials says"
    advice = f"write trials: {points} or more, or fewer values in grid_search, or a range and search: {{type: tpe}}"
    checks.require(points <= sweep.trials, "trials", found, expected, advice)
    if kind == "nsga2":
        found, advice = "nsga2 for one objective", "write search: {type: tpe}, or a second objective"
        checks.require(len(sweep.objectives) > 1, "search.type", found, "several objectives", advice)
        size, expected = sweep.search.population, f"at most the number of trials, {sweep.trials}"
        checks.require(size <= sweep.trials, "search.population", size, expected, "write fewer, or more trials")


def _check_metrics(checks: Checks, sweep: Sweep, base: Experiment) -> None:
    known, metrics = known_metrics() if sweep.of_failures else epoch_metric_names(base), sweep.objective_metrics
    judged = {f"objectives.{number}": metric for number, metric in enumerate(metrics)}
    judged |= {f"constraints.{number}": constraint.metric for number, constraint in enumerate(sweep.constraints)}
    for field, metric in judged.items():
        group = metric.partition("/")[0]
        expected = "one of " + ", ".join([name for name in known if name.startswith(f"{group}/")] or known)
        found = f"{metric}, which no fold reports"
        advice = did_you_mean(metric, known, "correct the name")
        checks.require(metric in known, f"{field}.metric", found, expected, advice)
    once = len(set(metrics)) == len(metrics)
    checks.require(once, "objectives", ", ".join(metrics), "each metric once", "remove one")


def _check_scheduler(checks: Checks, sweep: Sweep, base: Experiment) -> None:
    scheduler, metrics = sweep.scheduler, sweep.objective_metrics
    if scheduler.type == "fifo" or sweep.of_failures:
        return
    chosen = scheduler.metric is not None or len(metrics) == 1
    found, expected = f"{scheduler.type} with {len(metrics)} objectives", "one objective to compare trials by"
    advice = f"write scheduler.metric: {metrics[0]}, for example, or scheduler: {{type: fifo}}"
    checks.require(chosen, "scheduler.type", found, expected, advice)
    known, expected = scheduler.metric in (None, *metrics), f"one of the objectives: {', '.join(metrics)}"
    checks.require(known, "scheduler.metric", scheduler.metric, expected, "write one of them")
    grace, epochs = scheduler.grace_epochs, base.training.epochs
    expected = f"fewer than training.epochs, {epochs}: otherwise no trial is ever stopped"
    advice = "write fewer, or scheduler: {type: fifo}"
    checks.require(grace < epochs, "scheduler.grace_epochs", grace, expected, advice)


def _resolved(checks: Checks, number: int, constraint: Constraint, sweep: Sweep, base: Experiment) -> Constraint:
    """Return the constraint with numbers in place of its baseline, where the baseline has them."""
    if constraint.baseline is None or sweep.of_failures:
        return constraint
    where, run = f"constraints.{number}.baseline", RunFolder(base.storage.path / constraint.baseline)
    advice = "train it first (uncseg cross-validate), or write at_least: NUMBER"
    begun = run.experiment.is_file()
    checks.require(begun, where, f"no run in {run.root}", "a finished run of this name", advice)
    if not begun:
        return constraint
    epochs = base.training.epochs
    trained = read_saved(run.experiment).get("training", {}).get("epochs")
    found, expected = f"a run of {trained} epochs", f"{epochs}, as many as the trials have"
    checks.require(trained == epochs, where, found, expected, f"train it with --set training.epochs={epochs}")
    values: dict[int, float] = {}
    for fold in sweep.promoted_folds(base):
        history = read_history(run.spool, fold)
        value = history.epochs[history.last_epoch].metrics.get(constraint.metric, nan) if history.epochs else nan
        found = f"fold {fold} {history.state}, {constraint.metric}: {value}"
        expected = "the sweep's folds finished, those of promote included, with that metric"
        ready = history.state == "finished" and isfinite(value)
        checks.require(ready, where, found, expected, "train them first")
        values[fold] = value
    screened = fmean(values[fold] for fold in sweep.folds) - constraint.tolerance
    promoted = fmean(values.values()) - constraint.tolerance
    return BaselineConstraint(metric=constraint.metric, at_least=screened, promoted_at_least=promoted)


def require_place(sweep: Sweep, base: Experiment) -> None:
    """Refuse a folder that belongs to something else, or to a sweep with other settings.

    Raises:
        ProblemsFound: saying what it belongs to, or naming every field that differs.
    """
    folder = SweepFolder(base.storage.path.resolve() / sweep.name)
    folder.require_place()
    refuse_other_sweep(folder, sweep, base)


def refuse_other_sweep(folder: SweepFolder, sweep: Sweep, base: Experiment) -> None:
    """Refuse a folder that holds a sweep with other settings: one table would compare the trials of both.

    Raises:
        ProblemsFound: naming every field that differs.
    """
    if folder.content.is_file():
        read_study(folder, type(sweep))  # a damaged record is named as such
        before, now = read_json(folder.content), study_record(sweep, base)
        for field in FREE_TO_CHANGE:
            before[sweep.kind][field] = now[sweep.kind][field]
        problems = [p for part in now for p in differing_settings(before[part], now[part])]
        problems += changed_learning(sweep, before["experiment"], now["experiment"])
        if problems:
            raise ProblemsFound(f"The sweep {folder.root} exists with other settings.", problems)
