"""Benchmark file: a base experiment, the trainings to compare, and the seeds that each is repeated with.

benchmark, trainings = load_benchmark(Path("experiments/benchmarks/phantoms.yaml"))
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from uncseg.config.experiment import Experiment, load_experiment
from uncseg.config.fields import as_assignments
from uncseg.config.reading import read_yaml, validate
from uncseg.config.rules import problems_of_judged
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import FLOORS, HEAD
from uncseg.section import Positive, Section

ONE_PASS_CHOICES = (HEAD, "var1shot", "entropy", "variance_stable", *FLOORS)
"""Maps that one pass of a network gives, or its error memory."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*$")]


class Entry(Section):
    """A training, as the file has it."""

    set: dict[str, Any] = Field(default_factory=dict)
    """FIELD: VALUE over the base."""
    maps: tuple[str, ...] = ()
    """Maps of one pass that are compared, beside the head's and those of evaluation.estimators."""


class Benchmark(Section):
    """One benchmark file."""

    name: Name
    base: Path
    """Experiment file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """FIELD: VALUE over the base, for all trainings."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Of the trainings: each is done with each."""
    folds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """None: all."""
    shared: str = "plain"
    """The training whose segmentation all maps are scored on besides their own, and whose cost is 1."""
    least_dice_wt: Annotated[float, Field(ge=0, le=1)] = 0.85
    """Mean WT Dice that a segmentation must reach before its uncertainty is compared."""
    cost_repeats: Positive = 5
    """Times that the prediction of one case is measured with each estimator, in turn."""
    trainings: Annotated[dict[Name, Entry], Field(min_length=1)]


@dataclass(frozen=True)
class Training:
    """A training of the benchmark with one of its seeds."""

    name: str
    seed: int
    experiment: Experiment
    maps: tuple[str, ...]
    """Of one pass."""

    @property
    def run_name(self) -> str:
        """Of its run's folder."""
        return run_name(self.name, self.seed)


def run_name(training: str, seed: int) -> str:
    """Folder name of a training's run."""
    return f"{training}_seed_{seed}"


def training_of(run: str) -> str:
    """The training of a run's folder name: the other way round."""
    return run.rpartition("_seed_")[0]


def load_benchmark(path: Path, overrides: list[str] | None = None) -> tuple[Benchmark, Experiment, list[Training]]:
    """Read and check a benchmark file, the base and every training.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` for the base experiment, over the file's own.

    Returns:
        The benchmark, its base, and the trainings, seed by seed.

    Raises:
        ProblemsFound: with every problem of the file and of all trainings at once.
    """
    title = f"The benchmark {path} cannot be used."
    benchmark = validate(Benchmark, read_yaml(path, title, "experiments/benchmarks/phantoms.yaml"), path, title)
    common = as_assignments(benchmark.overrides) + (overrides or [])
    base = load_experiment(benchmark.base, common)
    problems = _problems(path, benchmark, base)
    trainings = []
    for seed in benchmark.seeds:
        for name, entry in benchmark.trainings.items():
            try:
                experiment = load_experiment(benchmark.base, common + as_assignments(entry.set))
            except ProblemsFound as error:
                problems += [_of_training(path, name, problem) for problem in error.problems]
                continue
            trainings.append(Training(name, seed, _placed(experiment, benchmark, base, name, seed), entry.maps))
        if problems:
            raise ProblemsFound(title, problems)
    problems = _unequal(path, trainings, benchmark.shared) + _shared_seeds(path, trainings)
    first = [one for one in trainings if one.seed == benchmark.seeds[0]]  # the others differ in their seeds alone
    problems += [problem for one in first for problem in _empty(path, one)] + _watching(path, first)
    if problems:
        raise ProblemsFound(title, problems)
    return benchmark, base, trainings


def _placed(experiment: Experiment, benchmark: Benchmark, base: Experiment, name: str, seed: int) -> Experiment:
    """The training's experiment with its seed, its place, and the run that an error network looks at."""
    storage = base.storage.path / benchmark.name / "trainings"
    update: dict[str, Any] = {
        "name": run_name(name, seed),
        "training": experiment.training.model_copy(update={"seed": seed}),
        "storage": experiment.storage.model_copy(update={"path": storage}),
        "tracking": experiment.tracking.model_copy(update={"uri": base.tracking_uri}),
    }
    watched = experiment.model.error_network
    if watched is not None:
        own = watched.model_copy(update={"run": run_name(watched.run, seed)})
        update["model"] = experiment.model.model_copy(update={"error_network": own})
    return experiment.model_copy(update=update)


def _of_training(path: Path, name: str, problem: Problem) -> Problem:
    if problem.where.startswith("--set "):
        field = problem.where.removeprefix("--set ").partition("=")[0]
    else:
        field = problem.where.rpartition(": ")[2]
    return Problem(f"{path}: trainings.{name}, {field}", problem.found, problem.expected, problem.advice)


def _problems(path: Path, benchmark: Benchmark, base: Experiment) -> list[Problem]:
    problems = []
    names = ", ".join(benchmark.trainings)
    if benchmark.shared not in benchmark.trainings:
        problems.append(Problem(f"{path}: shared", benchmark.shared, f"one of {names}", "name a training"))
    wrong = [fold for fold in benchmark.folds or () if fold not in range(base.split.folds)]
    if wrong:
        expected = f"folds from 0 to {base.split.folds - 1}"
        problems.append(Problem(f"{path}: folds", ", ".join(map(str, wrong)), expected, "correct the list"))
    for field, numbers in (("seeds", benchmark.seeds), ("folds", benchmark.folds or ())):
        if len(set(numbers)) < len(numbers):
            problems.append(Problem(f"{path}: {field}", str(list(numbers)), "each once", "correct the list"))
    if benchmark.folds is not None and len(benchmark.folds) == 1:
        expected = "two folds at least: a map's scale is fitted on the cases of the others"
        problems.append(Problem(f"{path}: folds", str(list(benchmark.folds)), expected, "name another fold"))
    for name, entry in benchmark.trainings.items():
        where = f"{path}: trainings.{name}"
        unknown = [one for one in entry.maps if one not in ONE_PASS_CHOICES]
        if unknown:
            expected = f"some of {', '.join(ONE_PASS_CHOICES)}"
            problems.append(Problem(f"{where}.maps", ", ".join(unknown), expected, "correct the list"))
        for field in entry.set:
            if field.split(".")[0] in ("dataset", "split", "storage", "tracking", "name") or field == "training.seed":
                advice = "write it into overrides, for all trainings, or remove it"
                problems.append(Problem(f"{where}.set", field, "a field that trainings may differ in", advice))
        watched = entry.set.get("model.error_network")
        of = entry.set.get("model.error_network.run") or (watched.get("run") if isinstance(watched, dict) else None)
        if of is not None and of not in benchmark.trainings:
            problems.append(Problem(f"{where}, model.error_network.run", str(of), f"one of {names}", "name a training"))
    return problems


def _unequal(path: Path, trainings: list[Training], shared: str) -> list[Problem]:
    """Trainings that take other optimiser steps than the shared one."""
    steps = {
        one.name: one.experiment.training.epochs * one.experiment.training.iterations_per_epoch for one in trainings
    }
    return [
        Problem(
            f"{path}: trainings.{name}",
            f"{number} optimiser steps",
            f"{steps[shared]}, as {shared} takes",
            "write training.epochs and iterations_per_epoch into overrides",
        )
        for name, number in steps.items()
        if number != steps[shared]
    ]


def _shared_seeds(path: Path, trainings: list[Training]) -> list[Problem]:
    """Trainings that would be the same networks with two seeds, since the members of an ensemble have seeds too."""
    problems = []
    for name in dict.fromkeys(one.name for one in trainings):
        own = [one for one in trainings if one.name == name]
        seeds = [seed for one in own for seed in one.experiment.training.member_seeds]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            found = f"seeds of which members of {name} would take {', '.join(map(str, twice))} twice"
            problems.append(Problem(f"{path}: seeds", found, "seeds nearer to each other", "write 0, 1, 2, …"))
    return problems


def _empty(path: Path, training: Training) -> list[Problem]:
    """A training that nothing is compared of, or a map that it cannot give."""
    where, problems = f"{path}: trainings.{training.name}.maps", []
    model, estimators = training.experiment.model, training.experiment.evaluation.estimators
    if HEAD in training.maps and not model.uncertainty:
        expected, advice = "a map that a network without the head gives", "write model.uncertainty: true, or remove it"
        problems.append(Problem(where, HEAD, expected, advice))
    if not (training.maps or model.uncertainty or estimators.several_pass):
        advice = "name some, as [entropy], or choose evaluation.estimators of several predictions"
        problems.append(Problem(where, "no map", "something to compare", advice))
    return problems


def _watching(path: Path, trainings: list[Training]) -> list[Problem]:
    """Error networks that cannot judge the training they name."""
    of_run = {one.run_name: one for one in trainings}
    problems = []
    for one in trainings:
        watched = one.experiment.model.error_network
        if watched is not None:
            judged = of_run[watched.run]
            field = f"{path}: trainings.{one.name}, model"
            problems += problems_of_judged(judged.experiment.model, one.experiment.model, judged.name, field)
    return problems
