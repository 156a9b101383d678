"""Loading a benchmark: its file, the base experiment and every training, and whether they can be compared.

benchmark, base, trainings = load_benchmark(Path("experiments/benchmarks/phantoms.yaml"))
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uncseg.config.experiment import Experiment, load_experiment
from uncseg.config.fields import is_within
from uncseg.config.reading import Override
from uncseg.config.rules import problems_of_judged
from uncseg.errors import Problem, ProblemsFound, did_you_mean, raise_if_any
from uncseg.estimators.registry import AGAINST_DECISION, CROSS_FITTED, HEAD, NO_FURTHER_PASS
from uncseg.layout import RunFolder
from uncseg.runs.needed_run import need_of
from uncseg.runs.run_opening import refuse_other_settings
from uncseg.studies.benchmark.benchmark_file import Benchmark, SeededTraining, run_name
from uncseg.studies.benchmark.methods import methods_of
from uncseg.studies.load_study import Checks, load_study, placed
from uncseg.studies.study_folder import BenchmarkFolder

ONE_PASS_MAPS = (*NO_FURTHER_PASS, AGAINST_DECISION)
COMMON = ("dataset", "split", "storage", "tracking", "name", "training.seed")
"""Sections and fields that the file sets for all trainings alike."""


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
    checks, experiments = Checks(), {}
    _check_file(checks, benchmark, base)
    common: list[str | Override] = [*placed(benchmark.overrides, "overrides."), *(overrides or [])]
    for name, entry in benchmark.trainings.items():
        try:
            experiment = load_experiment(benchmark.base, [*common, *placed(entry.set, f"trainings.{name}, ")])
        except ProblemsFound as error:
            checks += [_of_training(name, problem) for problem in error.problems]
            continue
        experiments[name] = experiment
        if (need := need_of(experiment)) is not None:
            expected = f"one of {', '.join(benchmark.trainings)}"
            advice = did_you_mean(need.run, benchmark.trainings, "name a training")
            where = f"trainings.{name}, {need.field}"
            checks.require(need.run in benchmark.trainings, where, need.run, expected, advice)
    checks.raise_all(path, benchmark)
    trainings = [
        SeededTraining(name, seed, _placed(experiments[name], benchmark, base, name, seed), entry.maps)
        for seed in benchmark.seeds
        for name, entry in benchmark.trainings.items()
    ]
    _check_steps(checks, experiments, benchmark.shared)
    _check_seeds(checks, experiments, benchmark.seeds)
    for name, entry in benchmark.trainings.items():
        _check_maps(checks, name, entry.maps, experiments[name])
        _check_needed(checks, name, experiments, benchmark)
    names = [method.name for training in trainings for method in methods_of(training)]
    proposed, advice = benchmark.proposed, did_you_mean(benchmark.proposed or "", names, "name a map of a training")
    checks.require(proposed in (None, *names), "proposed", proposed, "TRAINING/MAP", advice)
    checks.raise_all(path, benchmark)
    return benchmark, base, trainings


def _placed(experiment: Experiment, benchmark: Benchmark, base: Experiment, name: str, seed: int) -> Experiment:
    """Return the training's experiment with its seed, its place, and the run of the same seed that it needs."""
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
    if (run := experiment.memory.run) is not None:
        update["memory"] = experiment.memory.model_copy(update={"run": run_name(run, seed)})
    return experiment.model_copy(update=update)


def _of_training(name: str, problem: Problem) -> Problem:
    """Return a problem of a training's experiment with the training's name before the field."""
    before, where = f"trainings.{name}, ", problem.where.rpartition(": ")[2]
    return replace(problem, where=before + where.removeprefix(before))


def _check_file(checks: Checks, benchmark: Benchmark, base: Experiment) -> None:
    names, folds = benchmark.trainings, benchmark.folds or ()
    expected = f"one of {', '.join(names)}"
    advice = did_you_mean(benchmark.shared, names, "name a training")
    checks.require(benchmark.shared in names, "shared", benchmark.shared, expected, advice)
    wrong, expected = [n for n in folds if n not in range(base.split.folds)], f"folds from 0 to {base.split.folds - 1}"
    checks.require(not wrong, "folds", ", ".join(map(str, wrong)), expected, "correct the list")
    for field, numbers in (("seeds", benchmark.seeds), ("folds", folds)):
        once = len(set(numbers)) == len(numbers)
        checks.require(once, field, list(numbers), "each once", "correct the list")
    expected = "two folds at least: a map's scale is fitted on the cases of the others"
    checks.require(len(folds) != 1, "folds", list(folds), expected, "name another fold")
    for name, entry in names.items():
        unknown = [map_name for map_name in entry.maps if map_name not in ONE_PASS_MAPS]
        expected = f"some of {', '.join(ONE_PASS_MAPS)}"
        advice = did_you_mean(unknown[0] if unknown else "", ONE_PASS_MAPS, "correct the list")
        checks.require(not unknown, f"trainings.{name}.maps", ", ".join(unknown), expected, advice)
        for field in entry.set:
            expected, advice = "a field in which trainings may differ", "write it into overrides, for all, or remove it"
            checks.require(not is_within(field, COMMON), f"trainings.{name}.set", field, expected, advice)


def _check_steps(checks: Checks, experiments: dict[str, Experiment], shared: str) -> None:
    """Require that all trainings take as many optimiser steps as the shared one."""
    sections = {name: experiment.training for name, experiment in experiments.items()}
    steps = {name: section.epochs * section.iterations_per_epoch for name, section in sections.items()}
    advice = "set `training.epochs` and `training.iterations_per_epoch` in overrides"
    for name, number in steps.items():
        found, expected = f"{number} optimiser steps", f"{steps[shared]}, as {shared} takes"
        checks.require(number == steps[shared], f"trainings.{name}", found, expected, advice)


def _check_seeds(checks: Checks, experiments: dict[str, Experiment], seeds: Sequence[int]) -> None:
    """Require that no network occurs with two seeds: the members of an ensemble have seeds as well."""
    for name, experiment in experiments.items():
        sections = [experiment.training.model_copy(update={"seed": seed}) for seed in seeds]
        counts = Counter(seed for section in sections for seed in section.member_seeds)
        twice = ", ".join(str(seed) for seed in sorted(counts) if counts[seed] > 1)
        found = f"seeds with which members of {name} would take {twice} twice"
        checks.require(not twice, "seeds", found, "seeds nearer to each other", "write 0, 1, 2, …")


def _check_maps(checks: Checks, name: str, maps: Sequence[str], experiment: Experiment) -> None:
    """Require that a training has a map to compare, and can give all that are named."""
    where, model, estimators = f"trainings.{name}.maps", experiment.model, experiment.evaluation.estimators
    expected, advice = "a map that a network without the head gives", "set `model.uncertainty` to true, or remove it"
    checks.require(HEAD not in maps or model.uncertainty, where, HEAD, expected, advice)
    found, expected = f"{CROSS_FITTED}, and folds that learn no more than calibrated p", "folds that learn more"
    checks.require(
        CROSS_FITTED not in maps or experiment.failures.learns,
        where,
        found,
        expected,
        "set `failures.perceptron` to 32",
    )
    compared = bool(maps or model.uncertainty or estimators.several_pass)
    advice = "name some, as [entropy], or choose evaluation.estimators of several predictions"
    checks.require(compared, where, "no map", "something to compare", advice)


def _check_needed(checks: Checks, name: str, experiments: dict[str, Experiment], benchmark: Benchmark) -> None:
    """Require that the training that another one needs is trained before it, and fits."""
    experiment = experiments[name]
    if (need := need_of(experiment)) is None:
        return
    where, other = f"trainings.{name}, {need.field}", experiments[need.run]
    expected, advice = "a training that needs no other", "name another one"
    checks.require(need_of(other) is None, where, f"{need.run}, which needs another one itself", expected, advice)
    if need.source == "judged":
        checks += problems_of_judged(other.model, experiment.model, need.run, f"trainings.{name}, model")
    if need.source == CROSS_FITTED:
        maps = benchmark.trainings[need.run].maps
        found, expected = f"{need.run}, whose maps are {', '.join(maps) or 'none'}", f"a training with {CROSS_FITTED}"
        checks.require(CROSS_FITTED in maps, where, found, expected, f"add {CROSS_FITTED} to its maps")


def require_place(benchmark: Benchmark, base: Experiment, trainings: Sequence[SeededTraining]) -> None:
    """Refuse a folder that belongs to something else, or holds trainings with other settings.

    Raises:
        ProblemsFound: saying what it belongs to, or naming every field that differs.
    """
    folder = BenchmarkFolder(base.storage.path.resolve() / benchmark.name)
    folder.require_place()
    problems = []
    for training in trainings:
        try:
            refuse_other_settings(training.experiment, RunFolder(training.experiment.run_folder))
        except ProblemsFound as error:
            problems += [replace(p, where=f"{training.run_name}, {p.where}") for p in error.problems]
    raise_if_any(problems, f"The benchmark {folder.root} holds trainings with other settings.")
