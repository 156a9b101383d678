"""Sweep file: a base experiment, what to vary, on which folds, and what to look for.

sweep, base = load_sweep(Path("experiments/sweeps/demo.yaml"))
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uncseg.config.experiment import Experiment, load_experiment
from uncseg.config.fields import as_assignments
from uncseg.config.reading import read_yaml, validate
from uncseg.errors import ProblemsFound
from uncseg.section import Name, Positive, Section, Weight

Metric = Annotated[str, Field(pattern=r"^(train|val_patch|uncertainty)/.+")]
"""Name of an epoch's metric, as MLflow shows it."""
Hours = Annotated[float, Field(gt=0)]
Folds = Annotated[tuple[int, ...], Field(min_length=1)]


class Objective(Section):
    """What a trial is judged by: a metric of the epochs, as a mean over its folds."""

    metric: Metric
    mode: Literal["max", "min"] = "max"

    @property
    def worst(self) -> float:
        """Worse than any value; finite, since percentiles and distances are taken of it."""
        return -1e9 if self.mode == "max" else 1e9


class Constraint(Section):
    """What a trial must not fall below to be the best: a number, or a finished run's value less a tolerance."""

    metric: Metric
    at_least: float | None = None
    baseline: str | None = None
    """Name of a finished run in the same storage: its mean at its last epoch, over the folds that a trial has."""
    tolerance: Weight = 0.0
    """How far below the baseline is still good enough."""

    @property
    def bound(self) -> float:
        """The number, once the sweep has been loaded."""
        assert self.at_least is not None, "a baseline that was not resolved"
        return self.at_least

    @property
    def promoted_bound(self) -> float:
        """The number for a promoted trial, which is judged by more folds."""
        return self.bound

    @model_validator(mode="after")
    def _one_bound(self) -> "Constraint":
        if (self.at_least is None) == (self.baseline is None):
            raise ValueError("write at_least: NUMBER or baseline: RUN, one of the two")
        return self


class BaselineConstraint(Constraint):
    """With the numbers that a baseline has come to: ``at_least`` over the folds of the screening, and this."""

    promoted_at_least: float
    """Over all folds of a promoted trial: folds differ by more than a tolerance."""

    @property
    def promoted_bound(self) -> float:
        """The number for a promoted trial, which is judged by more folds."""
        return self.promoted_at_least


class Scheduler(Section):
    """Which trials go on. fifo: all; asha: those whose objective is among the best at each rung."""

    type: Literal["fifo", "asha"] = "asha"
    metric: Metric | None = None
    """The objective that it acts on. None: the only one."""
    grace_epochs: Positive = 1
    """Epochs that every trial gets."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """One in so many goes on from a rung to the next."""


class Search(Section):
    """Where the next trial lies. random, grid: known from the start; tpe, nsga2: Optuna's, from what trials gave."""

    type: Literal["random", "grid", "tpe", "nsga2"] = "random"
    random_trials: Positive = 10
    """tpe: trials drawn at random before its model is asked."""
    population: Annotated[int, Field(ge=2)] = 10
    """nsga2: trials of a generation."""


class Promote(Section):
    """The best trials go on to more folds; what they have trained stays."""

    top: Positive = 3
    folds: Folds | Literal["all"] = "all"


class Budget(Section):
    """What the search may take, the time before a kill included; promoted trials come on top. None: no limit."""

    hours: Hours | None = None
    """In which trials train."""
    gpu_hours: Hours | None = None
    """GPUs held by folds, times hours."""


class Sweep(Section):
    """One sweep file."""

    name: Name
    base: Path
    """Experiment file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """FIELD: VALUE over the base."""
    space: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """FIELD: {one of Tune's words: its arguments}, as loss.unc_weight: {uniform: [0, 1]}. A weight of weight_ce is
    named by its class, as loss.weight_ce.ed."""
    folds: Folds = (0,)
    """Folds that each trial trains, in step."""
    trials: Positive = 1
    """Most trials; the points of a grid must fit in."""
    base_first: bool = True
    """The first trial has the base's own values, where they lie in the space; the others have to be better."""
    trials_at_once: Positive | None = None
    """Most trials side by side. None: as many as fit."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = (Objective(metric="val_patch/dice_mean"),)
    """The first decides between trials that are equally good otherwise."""
    constraints: tuple[Constraint, ...] = ()
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    promote: Promote | None = None
    budget: Budget = Budget()
    keep_checkpoints: Literal["best", "all"] = "best"
    """Of which trials, once the sweep has ended: best, front and promoted ones, or all. A sweep that was begun with
    all, or before there was this field, stays with all."""
    seed: int = 0
    """Of the draws."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Of objectives and constraints, each once."""
        judged = [one.metric for one in self.objectives]
        return tuple(dict.fromkeys([*judged, *(one.metric for one in self.constraints)]))

    @property
    def scheduled(self) -> Objective:
        """The objective that the scheduler acts on."""
        return next((one for one in self.objectives if one.metric == self.scheduler.metric), self.objectives[0])

    def promoted_folds(self, base: Experiment) -> tuple[int, ...]:
        """Folds of a promoted trial, those of the screening included."""
        if self.promote is None:
            return self.folds
        wanted = range(base.split.folds) if self.promote.folds == "all" else self.promote.folds
        return tuple(sorted({*self.folds, *wanted}))


def load_sweep(path: Path, overrides: list[str] | None = None) -> tuple[Sweep, Experiment]:
    """Read and check a sweep file and the experiment that it starts from.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` for the base experiment, over the sweep's own.

    Returns:
        The sweep, baselines of its constraints replaced by their numbers, and the base with the overrides of both.

    Raises:
        ProblemsFound: with every problem of the file at once; those of the base first, since the space is checked
            against it.
    """
    from uncseg.studies.sweep.checks import check_sweep

    title = f"The sweep {path} cannot be used."
    sweep = validate(Sweep, read_yaml(path, title, "experiments/sweeps/demo.yaml"), path, title)
    base = load_experiment(sweep.base, as_assignments(sweep.overrides) + (overrides or []))
    sweep, problems = check_sweep(path, sweep, base)
    if problems:
        raise ProblemsFound(title, problems)
    return sweep, base
