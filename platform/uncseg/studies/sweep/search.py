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
    """What Tune has to know of a sweep.

    Args:
        sweep: its search, scheduler, number of trials and seed.
        epochs: of a whole trial.
        at_once: trials side by side.
        first: values of the first trial. None: drawn as the others.
    """
    return ray.tune.TuneConfig(
        num_samples=_samples(sweep),
        scheduler=_scheduler(sweep, epochs),
        search_alg=_searcher(sweep, at_once, [] if first is None else [dict(first)]),
    )


def _samples(sweep: Sweep) -> int:
    """Draws; Tune makes a trial of each point of the grid for each of them."""
    if all(parse_domain(domain)[0] == GRID for domain in sweep.space.values()):
        return 1
    return sweep.trials // grid_points(sweep.space)


def _searcher(sweep: Sweep, at_once: int, points: list[dict[str, Any]]) -> Any:
    if sweep.search.type in ("random", "grid"):
        return Draws(points, random_state=sweep.seed, max_concurrent=at_once)
    from optuna.logging import WARNING, set_verbosity
    from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

    set_verbosity(WARNING)  # what it does is ours to say
    sampler: BaseSampler
    if sweep.search.type == "nsga2":
        sampler = NSGAIISampler(population_size=sweep.search.population, seed=sweep.seed)
    else:
        # of trials side by side each is to lie elsewhere
        sampler = TPESampler(
            n_startup_trials=sweep.search.random_trials, multivariate=True, constant_liar=True, seed=sweep.seed
        )
    metrics, modes = [one.metric for one in sweep.objectives], [one.mode for one in sweep.objectives]
    single = len(metrics) == 1
    optuna = ConstrainedOptuna(
        sweep.constraints,
        metric=metrics[0] if single else metrics,
        mode=modes[0] if single else modes,
        sampler=sampler,
        points_to_evaluate=points,
    )
    return AtOnce(optuna, at_once)


class Draws(BasicVariantGenerator):
    """Draws that are known from the start; how many trials lie side by side is this command's to say."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where a command was stopped, which may have had another cluster."""
        super().set_state({**state, "max_concurrent": self.max_concurrent})


class AtOnce(ConcurrencyLimiter):
    """Trials of a search side by side; how many is this command's to say."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from where a command was stopped, which may have had another cluster."""
        super().set_state({**state, "max_concurrent": self.max_concurrent})


class ConstrainedOptuna(OptunaSearch):
    """Optuna's search, which also hears whether a trial satisfies the constraints.

    Args:
        constraints: with their numbers.
        options: of Ray's ``OptunaSearch``.
    """

    def __init__(self, constraints: tuple[Constraint, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self._constraints = constraints

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Optuna takes a trial as feasible where each constraint's value is 0 or less."""
        if result:
            for constraint in self._constraints:
                short = constraint.bound - result.get(constraint.metric, -math.inf)
                optuna_trial(self, trial_id).set_constraint(constraint.metric, short)
        super().on_trial_complete(trial_id, result, error)


def _scheduler(sweep: Sweep, epochs: int) -> TrialScheduler:
    scheduler = sweep.scheduler
    if scheduler.type == "fifo":
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=sweep.scheduled.metric,
        mode=sweep.scheduled.mode,
        # a rung at the last epoch would end a trial that has all but its final checkpoint
        max_t=epochs - 1,
        stop_last_trials=False,
        grace_period=scheduler.grace_epochs,
        reduction_factor=scheduler.reduction_factor,
    )


def replay_reports(scheduler: TrialScheduler, reported: pd.DataFrame, sweep: Sweep) -> None:
    """Tell a new scheduler what an earlier command's has heard: Tune keeps trials and search, but no rungs.

    Without it, the first trials after a kill would be compared with nobody, and go on.

    Args:
        scheduler: of the same sweep; only ASHA remembers anything.
        heard: one row a trial and epoch, as ``reported_table`` gives it.
        sweep: what they are trials of.
    """
    if not isinstance(scheduler, AsyncHyperBandScheduler):
        return
    sign = 1.0 if sweep.scheduled.mode == "max" else -1.0
    for row in reported.to_dict("records"):  # of a trial its epochs in order, as it reported them
        record_at_rungs(scheduler, row["trial"], row["epoch"], sign * row[sweep.scheduled.metric])
