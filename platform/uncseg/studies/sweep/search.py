"""A sweep in Ray Tune's terms: its space, the algorithm that draws from it, the scheduler that ends weak trials."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import ray.tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from uncseg.cluster.ray_internals import optuna_trial, record_at_rungs
from uncseg.studies.sweep.space import GRID, LISTS, grid_points, parse_domain
from uncseg.studies.sweep.sweep_file import Constraint, Sweep


def param_space(sweep: Sweep) -> dict[str, Any]:
    """Return each field's domain as Tune's own object."""
    domains = {}
    for field, domain in sweep.space.items():
        name, arguments = parse_domain(domain)
        domains[field] = getattr(ray.tune, name)(*([arguments] if name in LISTS else arguments))
    return domains


def tune_config(sweep: Sweep, epochs: int, at_once: int, first: Mapping[str, Any] | None = None) -> ray.tune.TuneConfig:
    """Return search, scheduler and number of draws as Tune takes them, for whole trials of ``epochs`` epochs.

    ``first`` holds the values of the first trial, which is drawn as the others where it is None.
    """
    gridded = all(parse_domain(domain)[0] == GRID for domain in sweep.space.values())
    return ray.tune.TuneConfig(
        # Tune trains every point of the grid with each draw of the other fields
        num_samples=1 if gridded else sweep.trials // grid_points(sweep.space),
        scheduler=_scheduler(sweep, epochs),
        search_alg=_search_algorithm(sweep, at_once, [] if first is None else [dict(first)]),
    )


def _search_algorithm(sweep: Sweep, at_once: int, points: list[dict[str, Any]]) -> Any:
    if sweep.search.type in ("random", "grid"):
        return Draws(points, random_state=sweep.seed, max_concurrent=at_once)
    from optuna.logging import WARNING, set_verbosity
    from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

    set_verbosity(WARNING)  # the command prints the trials itself
    sampler: BaseSampler
    if sweep.search.type == "nsga2":
        sampler = NSGAIISampler(population_size=sweep.search.population, seed=sweep.seed)
    else:
        # constant_liar: trials side by side are drawn apart from each other
        sampler = TPESampler(
            n_startup_trials=sweep.search.random_trials, multivariate=True, constant_liar=True, seed=sweep.seed
        )
    metric, mode = ([getattr(objective, name) for objective in sweep.objectives] for name in ("metric", "mode"))
    if len(sweep.objectives) == 1:
        (metric,), (mode,) = metric, mode
    optuna = ConstrainedOptuna(sweep.constraints, metric=metric, mode=mode, sampler=sampler, points_to_evaluate=points)
    return AtOnce(optuna, at_once)


class Draws(BasicVariantGenerator):
    """Draws all of which are known from the start."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state of a stopped command, but keep this command's number of trials side by side."""
        super().set_state({**state, "max_concurrent": self.max_concurrent})


class AtOnce(ConcurrencyLimiter):
    """Limits how many trials of a search are trained side by side."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state of a stopped command, but keep this command's number of trials side by side."""
        super().set_state({**state, "max_concurrent": self.max_concurrent})


class ConstrainedOptuna(OptunaSearch):
    """Optuna's search, which also learns whether a trial satisfies the constraints; ``options``: of the base class."""

    def __init__(self, constraints: tuple[Constraint, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self._constraints = constraints

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna the constraints: it takes a trial as feasible where each one's value is 0 or less."""
        for constraint in self._constraints if result else ():
            shortfall = constraint.bound() - (result or {}).get(constraint.metric, -math.inf)
            optuna_trial(self, trial_id).set_constraint(constraint.metric, shortfall)
        super().on_trial_complete(trial_id, result, error)


def _scheduler(sweep: Sweep, epochs: int) -> TrialScheduler:
    if sweep.scheduler.type == "fifo":
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=sweep.scheduled.metric,
        mode=sweep.scheduled.mode,
        # no rung at the last epoch: it would end a trial that only lacks its final checkpoint
        max_t=epochs - 1,
        stop_last_trials=False,
        grace_period=sweep.scheduler.grace_epochs,
        reduction_factor=sweep.scheduler.reduction_factor,
    )


def replay_reports(scheduler: TrialScheduler, reported: pd.DataFrame, sweep: Sweep) -> None:
    """Tell a new scheduler what was reported to that of a stopped command: Tune keeps trials and search, but no rungs.

    Otherwise the first trials after a kill would be compared with no other, and go on. Only ASHA has rungs;
    ``reported`` is what ``reported_table`` returns.
    """
    if isinstance(scheduler, AsyncHyperBandScheduler):
        sign = 1.0 if sweep.scheduled.mode == "max" else -1.0
        for row in reported.to_dict("records"):  # each trial's epochs in order
            record_at_rungs(scheduler, row["trial"], row["epoch"], sign * row[sweep.scheduled.metric])
