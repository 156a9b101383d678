"""A sweep on Ray Tune: trials drawn from a space, each a group of folds, a scheduler that acts on their mean."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import ray.tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from uncseg.cluster.autoscaler import HEAD
from uncseg.cluster.nodes import Cluster
from uncseg.cluster.resources import Slots
from uncseg.cluster.trial import TrialSetup, train_trial
from uncseg.errors import Problem, ProblemsFound
from uncseg.sweep_file import LISTS, Objective, Sweep

SNAPSHOT_S = "2"  # a killed command forgets what Tune decided since the last one


def trials_at_once(sweep: Sweep, slots: Slots, cluster: Cluster) -> int:
    """How many trials fit side by side, each with all its folds.

    Raises:
        ProblemsFound: where not even one fits, since its folds would wait for each other for ever.
    """
    workers = sum(node.fits(slots.each.of_worker) for node in cluster.at_most)
    at_once = workers // (len(sweep.folds) * slots.each.processes)
    if at_once < 1:
        found = f"{len(sweep.folds)} folds a trial, in step"
        expected = f"at most {workers // slots.each.processes}, which is what fits on the cluster at once"
        advice = "write fewer folds, or give each fold less (resources.cpus_per_fold, resources.gpus_per_fold)"
        raise ProblemsFound("The trials cannot be placed on this cluster.", [Problem("folds", found, expected, advice)])
    return at_once


def run_sweep(sweep: Sweep, setup: TrialSetup, folder: Path, at_once: int, callbacks: Sequence[Any]) -> None:
    """Run the trials, or go on with those of a command that was stopped: same trials, same ids.

    Args:
        folder: the sweep's; Tune's own state lies in it.
        at_once: trials side by side.
        callbacks: Tune's.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOT_S
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the command, as everywhere else
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the spools are the metric table
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # and the events of trials what is printed
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(train_trial, setup=setup),
        # a trial itself computes nothing: it waits for its folds, on the head, which is there to stay
        ray.tune.PlacementGroupFactory([{HEAD: 0.001}]),
    )
    state = folder / "tune"
    run_config = ray.tune.RunConfig(name=state.name, storage_path=str(folder), callbacks=list(callbacks), verbose=0)
    if ray.tune.Tuner.can_restore(str(state)):
        tuner = ray.tune.Tuner.restore(str(state), trainable, resume_unfinished=True)
        # what Tune restores are the callbacks of the command that is gone
        tuner._local_tuner._run_config.callbacks = list(callbacks)
    else:
        tuner = ray.tune.Tuner(
            trainable,
            param_space={field: _domain(words) for field, words in sweep.space.items()},
            tune_config=ray.tune.TuneConfig(
                num_samples=sweep.trials,
                max_concurrent_trials=at_once,
                scheduler=_scheduler(sweep, setup.base.training.epochs),
                search_alg=BasicVariantGenerator(random_state=sweep.seed, max_concurrent=at_once),
            ),
            run_config=run_config,
        )
    tuner.fit()


def _domain(words: dict[str, Any]) -> Any:
    """A field's part of the space in Tune's own words."""
    word, given = next(iter(words.items()))
    return getattr(ray.tune, word)(*([given] if word in LISTS else given))


def _scheduler(sweep: Sweep, epochs: int) -> TrialScheduler:
    if sweep.scheduler.type == "fifo":
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=sweep.objective.metric,
        mode=sweep.objective.mode,
        max_t=epochs + 1,  # at ``epochs`` it would end a trial before its final checkpoint
        grace_period=sweep.scheduler.grace_epochs,
        reduction_factor=sweep.scheduler.reduction_factor,
    )


def rank_trials(rows: Sequence[dict[str, Any]], objective: Objective) -> pd.DataFrame:
    """One row a trial, the best first; trials that did not reach the end come after those that did."""
    frame = pd.DataFrame(rows)
    frame["whole"] = frame["state"] == "finished"
    order = frame.sort_values(
        ["whole", "objective", "trial"], ascending=[False, objective.mode == "min", True], ignore_index=True
    )
    return order.drop(columns="whole")
