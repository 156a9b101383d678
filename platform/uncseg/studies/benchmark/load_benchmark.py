"""Loading a benchmark: its file, the base experiment and every training, and whether they can be compared.

benchmark, base, trainings = load_benchmark(Path("experiments/benchmarks/phantoms.yaml"))
"""

from pathlib import Path
from typing import Any

from uncseg.config.experiment import Experiment, load_experiment
from uncseg.config.fields import as_assignments
from uncseg.config.rules import problems_of_judged
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import HEAD
from uncseg.studies.benchmark.benchmark_file import ONE_PASS_CHOICES, Benchmark, SeededTraining, run_name
from uncseg.studies.load_study import load_study, raise_problems

COMMON = ("dataset", "split", "storage", "tracking", "name")
"""Sections that all trainings share."""


def load_benchmark(
    path: Path, overrides: list[str] | None = None
) -> tuple[Benchmark, Experiment, list[SeededTraining]]:
    """Read and check a benchmark file, the base and every training.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` for the base experiment, applied after the file's own.

    Returns:
        The benchmark, its base, and the trainings, seed by seed.

    Raises:
        ProblemsFound: with every problem of the file and of all trainings at once.
    """
    benchmark, base = load_study(path, Benchmark, overrides)
    problems, experiments = _check_file(benchmark, base), {}
    common = as_assignments(benchmark.overrides) + (overrides or [])
    for name, entry in benchmark.trainings.items():
        try:
            experiment = load_experiment(benchmark.base, common + as_assignments(entry.set))
        except ProblemsFound as error:
            problems += [_of_training(name, problem) for problem in error.problems]
            continue
        experiments[name] = experiment
        judge = experiment.model.error_network
        if judge is not None and judge.run not in benchmark.trainings:
            where, expected = f"trainings.{name}, model.error_network.run", f"one of {', '.join(benchmark.trainings)}"
            problems.append(Problem(where, judge.run, expected, "name a training"))
    raise_problems(path, benchmark, problems)
    trainings = [
        SeededTraining(name, seed, _placed(experiments[name], benchmark, base, name, seed), entry.maps)
        for seed in benchmark.seeds
        for name, entry in benchmark.trainings.items()
    ]
    first = trainings[: len(experiments)]  # the others differ in their seeds alone
    problems = _check_steps(first, benchmark.shared) + _check_member_seeds(trainings)
    problems += [problem for training in first for problem in _check_maps(training)] + _check_judges(first)
    raise_problems(path, benchmark, problems)
    return benchmark, base, trainings


def _placed(experiment: Experiment, benchmark: Benchmark, base: Experiment, name: str, seed: int) -> Experiment:
    """Return the training's experiment with its seed, its place, and the run that its error network judges."""
    storage = base.storage.path / benchmark.name / "trainings"
    update: dict[str, Any] = {
        "name": run_name(name, seed),
        "training": experiment.training.model_copy(update={"seed": seed}),
        "storage": experiment.storage.model_copy(update={"path": storage}),
        "tracking": experiment.tracking.model_copy(update={"uri": base.tracking_uri}),
    }
    judge = experiment.model.error_network
    if judge is not None:
        seeded = judge.model_copy(update={"run": run_name(judge.run, seed)})
        update["model"] = experiment.model.model_copy(update={"error_network": seeded})
    return experiment.model_copy(update=update)


def _of_training(name: str, problem: Problem) -> Problem:
    """Return a problem of a training's experiment with the training's name before the field."""
    if problem.where.startswith("--set "):
        field = problem.where.removeprefix("--set ").partition("=")[0]
    else:
        field = problem.where.rpartition(": ")[2]
    return Problem(f"trainings.{name}, {field}", problem.found, problem.expected, problem.advice)


def _check_file(benchmark: Benchmark, base: Experiment) -> list[Problem]:
    problems = []
    if benchmark.shared not in benchmark.trainings:
        expected = f"one of {', '.join(benchmark.trainings)}"
        problems.append(Problem("shared", benchmark.shared, expected, "name a training"))
    folds = benchmark.folds or ()
    wrong = [fold for fold in folds if fold not in range(base.split.folds)]
    if wrong:
        expected = f"folds from 0 to {base.split.folds - 1}"
        problems.append(Problem("folds", ", ".join(map(str, wrong)), expected, "correct the list"))
    for field, numbers in (("seeds", benchmark.seeds), ("folds", folds)):
        if len(set(numbers)) < len(numbers):
            problems.append(Problem(field, str(list(numbers)), "each once", "correct the list"))
    if len(folds) == 1:
        expected = "two folds at least: a map's scale is fitted on the cases of the others"
        problems.append(Problem("folds", str(list(folds)), expected, "name another fold"))
    for name, entry in benchmark.trainings.items():
        unknown = [each for each in entry.maps if each not in ONE_PASS_CHOICES]
        if unknown:
            expected = f"some of {', '.join(ONE_PASS_CHOICES)}"
            problems.append(Problem(f"trainings.{name}.maps", ", ".join(unknown), expected, "correct the list"))
        for field in entry.set:
            if field.split(".")[0] in COMMON or field == "training.seed":
                advice = "write it into overrides, for all trainings, or remove it"
                expected = "a field in which trainings may differ"
                problems.append(Problem(f"trainings.{name}.set", field, expected, advice))
    return problems


def _check_steps(trainings: list[SeededTraining], shared: str) -> list[Problem]:
    """Find trainings that take another number of optimiser steps than the shared one."""
    sections = {training.name: training.experiment.training for training in trainings}
    steps = {name: section.epochs * section.iterations_per_epoch for name, section in sections.items()}
    expected = f"{steps[shared]}, as {shared} takes"
    advice = "write training.epochs and iterations_per_epoch into overrides"
    return [
        Problem(f"trainings.{name}", f"{number} optimiser steps", expected, advice)
        for name, number in steps.items()
        if number != steps[shared]
    ]


def _check_member_seeds(trainings: list[SeededTraining]) -> list[Problem]:
    """Find trainings whose networks are the same with two seeds: the members of an ensemble have seeds as well."""
    problems = []
    for name in dict.fromkeys(training.name for training in trainings):
        own = [training.experiment.training for training in trainings if training.name == name]
        seeds = [seed for section in own for seed in section.member_seeds]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            found = f"seeds with which members of {name} would take {', '.join(map(str, twice))} twice"
            problems.append(Problem("seeds", found, "seeds nearer to each other", "write 0, 1, 2, …"))
    return problems


def _check_maps(training: SeededTraining) -> list[Problem]:
    """Find a training without any map to compare, or a map that it cannot give."""
    where, problems = f"trainings.{training.name}.maps", []
    model, estimators = training.experiment.model, training.experiment.evaluation.estimators
    if HEAD in training.maps and not model.uncertainty:
        expected, advice = "a map that a network without the head gives", "set model.uncertainty: true, or remove it"
        problems.append(Problem(where, HEAD, expected, advice))
    if not (training.maps or model.uncertainty or estimators.several_pass):
        advice = "name some, as [entropy], or choose evaluation.estimators of several predictions"
        problems.append(Problem(where, "no map", "something to compare", advice))
    return problems


def _check_judges(trainings: list[SeededTraining]) -> list[Problem]:
    """Find error networks that cannot judge the training that they name."""
    by_run = {training.run_name: training for training in trainings}
    problems = []
    for training in trainings:
        model = training.experiment.model
        if model.error_network is not None:
            judged = by_run[model.error_network.run]
            field = f"trainings.{training.name}, model"
            problems += problems_of_judged(judged.experiment.model, model, judged.name, field)
    return problems
