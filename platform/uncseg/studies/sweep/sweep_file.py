"""Sweep file: a base experiment, which fields to vary, on which folds, and what to optimise."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uncseg.config.experiment import Experiment
from uncseg.config.fields import is_within
from uncseg.section import Positive, RunName, Section, Seed, Weight
from uncseg.studies.load_study import Study

Metric = Annotated[str, Field(pattern=r"^(train|val_patch|uncertainty|failures)/.+", max_length=200)]
"""Name of an epoch's metric, as MLflow shows it."""
FAILURES_SECTION = "failures"
Hours = Annotated[float, Field(gt=0, le=1e6)]
Folds = Annotated[tuple[int, ...], Field(min_length=1)]


class Objective(Section):
    """What a trial is judged by: a metric of the epochs, as the mean over its folds."""

    metric: Metric
    mode: Literal["max", "min"] = "max"

    @property
    def worst(self) -> float:
        """Worse than any value; finite, since percentiles and distances are computed from it."""
        return -1e9 if self.mode == "max" else 1e9


class Constraint(Section):
    """A lower bound that the best trial must satisfy: a number, or the value of a finished run less a tolerance."""

    metric: Metric
    at_least: float | None = None
    baseline: RunName | None = None
    """Name of a finished run in the same storage: its mean at its last epoch, over the folds that a trial has."""
    tolerance: Weight = 0.0
    """How far below the baseline is still good enough."""

    def bound(self, promoted: bool = False) -> float:  # noqa: ARG002
        """Return the number, once the sweep has been loaded; a promoted trial may have another one."""
        assert self.at_least is not None, "a baseline that was not resolved"
        return self.at_least

    @model_validator(mode="after")
    def _one_bound(self) -> "Constraint":
        if (self.at_least is None) == (self.baseline is None):
            raise ValueError("write at_least: NUMBER or baseline: RUN, one of the two")
        return self


class BaselineConstraint(Constraint):
    """A constraint whose baseline is resolved: ``at_least`` over the folds of the screening, and one more number."""

    promoted_at_least: float
    """Over all folds of a promoted trial: folds differ by more than a tolerance."""

    def bound(self, promoted: bool = False) -> float:
        """Return the number for the folds that a trial has."""
        return self.promoted_at_least if promoted else super().bound()


class Scheduler(Section):
    """Which trials go on. fifo: all; asha: those whose objective is among the best at each rung."""

    type: Literal["fifo", "asha"] = "asha"
    metric: Metric | None = None
    """The objective that it compares. None: the only one."""
    grace_epochs: Positive = 1
    """Epochs that every trial is given."""
    reduction_factor: Annotated[float, Field(gt=1, le=1000)] = 3
    """One in this many trials goes on from a rung to the next."""


class Search(Section):
    """How the values of the next trial are chosen.

    random and grid know all values from the start; tpe and nsga2 (Optuna's) learn from the results of trials.
    """

    type: Literal["random", "grid", "tpe", "nsga2"] = "random"
    random_trials: Positive = 10
    """tpe: trials drawn at random before its model is asked."""
    population: Annotated[int, Field(ge=2, le=10_000)] = 10
    """nsga2: trials per generation."""


class Promote(Section):
    """The best trials go on to more folds, and keep what they have trained."""

    top: Positive = 3
    folds: Folds | Literal["all"] = "all"


class Budget(Section):
    """Limits of the search, with the time before a kill counted. Promoted trials are not counted. None: no limit."""

    hours: Hours | None = None
    """In which trials train."""
    gpu_hours: Hours | None = None
    """GPUs held by folds, times hours."""


class Sweep(Study):
    """One sweep file."""

    kind = "sweep"
    space: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """FIELD: {function of Ray Tune's search space: its arguments}, its domain, as loss.unc_weight: {uniform: [0, 1]}.
    A weight of weight_ce is named by its class, as loss.weight_ce.background."""
    folds: Folds = (0,)
    """Folds that each trial trains, in step; or that learn from failures, one after the other."""
    trials: Annotated[int, Field(gt=0, le=100_000)] = 1
    """Most trials; the points of a grid must fit in."""
    base_first: bool = True
    """The first trial has the base's own values, where the space contains them; the others have to be better."""
    trials_at_once: Positive | None = None
    """Most trials side by side. None: as many as fit."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)] = (Objective(metric="val_patch/dice_mean"),)
    """The first decides between trials that are otherwise equally good."""
    constraints: tuple[Constraint, ...] = ()
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    promote: Promote | None = None
    budget: Budget = Budget()
    keep_checkpoints: Literal["best", "all"] = "best"
    """Trials that keep their checkpoints once the sweep has ended: the best, the front's and promoted ones, or all."""
    seed: Seed = 0
    """Seed of what the search draws."""

    @property
    def params(self) -> dict[str, str]:
        """Parameters of the sweep's own run in MLflow."""
        return {
            "search": self.search.type,
            "scheduler": self.scheduler.type,
            "trials": str(self.trials),
            "folds": ", ".join(map(str, self.folds)),
            "objectives": ", ".join(f"{objective.mode} {objective.metric}" for objective in self.objectives),
            **{f"space.{field}": str(domain) for field, domain in self.space.items()},
        }

    @property
    def of_failures(self) -> bool:
        """Whether it searches how the folds of the base's own run, which is finished, learn from failures."""
        return all(is_within(field, (FAILURES_SECTION,)) for field in self.space)

    @property
    def folds_in_step(self) -> int:
        """Folds that a trial trains side by side. What folds learn from failures, they learn one after the other."""
        return 1 if self.of_failures else len(self.folds)

    @property
    def objective_metrics(self) -> list[str]:
        """Metrics of the objectives."""
        return [objective.metric for objective in self.objectives]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of objectives and constraints, each once."""
        return tuple(dict.fromkeys(self.objective_metrics + [constraint.metric for constraint in self.constraints]))

    @property
    def scheduled(self) -> Objective:
        """The objective that the scheduler compares."""
        return next((one for one in self.objectives if one.metric == self.scheduler.metric), self.objectives[0])

    def promoted_folds(self, base: Experiment) -> tuple[int, ...]:
        """Return the folds of a promoted trial, those of the screening included."""
        if self.promote is None:
            return self.folds
        wanted = range(base.split.folds) if self.promote.folds == "all" else self.promote.folds
        return tuple(sorted({*self.folds, *wanted}))
