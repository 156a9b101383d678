"""A sweep on Ray Tune: trials drawn from a space, each a group of folds, a scheduler that acts on their mean."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.tune

from uncseg.cluster.ray_internals import HEAD_NODE, replace_restored
from uncseg.cluster.resources import Slots
from uncseg.errors import Problem, ProblemsFound
from uncseg.runs.train_folds import PLACEMENT_TIMEOUT_S
from uncseg.studies.sweep.budget import BudgetStopper
from uncseg.studies.sweep.search import param_space, replay_reports, tune_config
from uncseg.studies.sweep.snapshots import can_go_on
from uncseg.studies.sweep.space import base_values
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trials import reported_table

SNAPSHOT_S = "2"  # a killed command forgets what Tune decided since the last one


def trials_at_once(sweep: Sweep, slots: Slots) -> int:
    """How many trials are trained side by side, each with all its folds.

    Args:
        slots: folds that fit side by side.

    Raises:
        ProblemsFound: where not even one fits, since its folds would wait for each other for ever; and for several
            GPUs a fold where a trial has several folds.
    """
    folds, title = len(sweep.folds), "The trials cannot be placed on this cluster."
    if folds > 1 and slots.fold.processes > 1:
        found, expected = f"{slots.fold.gpus:g} GPUs for each of {folds} folds in step", "one GPU a fold, or one fold"
        advice = "write resources.gpus_per_fold: 1, or one fold"
        raise ProblemsFound(title, [Problem("folds", found, expected, advice)])
    if slots.max_count < folds:
        found, expected = f"{folds} folds a trial, in step", f"at most {slots.max_count}, which is what fits at once"
        advice = "write fewer folds, or give each less (resources.cpus_per_fold, gpus_per_fold, folds_at_once)"
        raise ProblemsFound(title, [Problem("folds", found, expected, advice)])
    return min(slots.max_count // folds, sweep.trials_at_once or sweep.trials, sweep.trials)


def require_gpus(sweep: Sweep, slots: Slots) -> None:
    """A budget of GPU-hours would never be spent without GPUs.

    Raises:
        ProblemsFound: naming the field.
    """
    if sweep.budget.gpu_hours is not None and not slots.fold.gpus:
        found, advice = "GPU-hours, and folds that train on CPUs", "write budget.hours"
        problem = Problem("budget.gpu_hours", found, "a cluster with GPUs", advice)
        raise ProblemsFound("The budget cannot be kept.", [problem])


def sweep_tuner(
    setup: TrialSetup, folder: Path, at_once: int, budget: BudgetStopper, callbacks: Sequence[Any], trainable: Any
) -> ray.tune.Tuner:
    """Return Tune, ready to begin, or to go on with the same trials and ids where a command was stopped.

    Args:
        setup: the sweep and what its trials share.
        folder: the sweep's; Tune's own state lies in it.
        at_once: trials side by side.
        budget: ends all trials when it is spent.
        callbacks: Tune's.
        trainable: trains a trial, given its values and ``setup``.

    Raises:
        ProblemsFound: there are trials, and no state of Tune's that can be read.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOT_S
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the command, as everywhere else
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the spools are the metric table
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # and the events of trials what is printed
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # trials that a larger cluster has begun may wait for each other on this one
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PLACEMENT_TIMEOUT_S)
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(trainable, setup=setup),
        # a trial itself computes nothing: it waits for its folds, on the head, which is there to stay
        ray.tune.PlacementGroupFactory([{HEAD_NODE: 0.001}]),
    )
    sweep, state = setup.sweep, folder / "tune"
    begun = can_go_on(state, setup.folder, sweep)
    first = base_values(sweep.space, setup.base) if sweep.base_first else None
    config = tune_config(sweep, setup.base.training.epochs, at_once, first)
    run_config = ray.tune.RunConfig(
        name=state.name, storage_path=str(folder), callbacks=list(callbacks), stop=budget, verbose=0
    )
    # also where it goes on: it writes tuner.pkl, which a kill may have torn
    tuner = ray.tune.Tuner(trainable, param_space=param_space(sweep), tune_config=config, run_config=run_config)
    if begun:
        replay_reports(config.scheduler, reported_table(setup.folder), sweep)
        tuner = ray.tune.Tuner.restore(str(state), trainable, resume_unfinished=True)
        # what Tune restores are copies; search and trials take up their state when it begins
        replace_restored(tuner, config, callbacks, budget)
    return tuner
