"""A sweep on Ray Tune: trials drawn from a space, each a group of folds, and a scheduler that compares their means."""

import os
from typing import Any

import ray.tune

from uncseg.cluster.ray_internals import HEAD_NODE, replace_restored
from uncseg.cluster.resources import Slots
from uncseg.errors import Problem, ProblemsFound
from uncseg.runs.fold_group import MAX_WORKER_DEATHS
from uncseg.runs.train_folds import set_ray_train_defaults
from uncseg.studies.sweep.budget import BudgetStopper
from uncseg.studies.sweep.search import param_space, replay_reports, tune_config
from uncseg.studies.sweep.snapshots import can_go_on
from uncseg.studies.sweep.space import base_values
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trials import reported_table

SNAPSHOT_S = "2"  # a killed command loses what Tune decided since the last one


def trials_at_once(sweep: Sweep, slots: Slots) -> int:
    """Return how many trials are trained side by side, each with all its folds.

    Raises:
        ProblemsFound: not even one trial fits, so that its folds would wait for each other for ever; a fold takes
            several GPUs and a trial has several folds; or a budget of GPU-hours would never be spent without GPUs.
    """
    folds, problem = sweep.folds_in_step, None
    if folds > 1 and slots.fold.processes > 1:
        found = f"{slots.fold.gpus:g} GPUs for each of {folds} folds in step"
        advice = "set `resources.gpus_per_fold` to 1, or write one fold"
        problem = Problem("folds", found, "one GPU per fold, or one fold", advice)
    elif slots.max_count < folds:
        expected = f"at most {slots.max_count}, which is what fits at once"
        advice = "write fewer folds, or give each less (resources.cpus_per_fold, gpus_per_fold, folds_at_once)"
        problem = Problem("folds", f"{folds} folds per trial, in step", expected, advice)
    elif sweep.budget.gpu_hours is not None and not slots.fold.gpus:
        found, advice = "GPU-hours, and folds that train on CPUs", "write budget.hours"
        problem = Problem("budget.gpu_hours", found, "a cluster with GPUs", advice)
    if problem is not None:
        raise ProblemsFound("The trials cannot be trained on this cluster.", [problem])
    return min(slots.max_count // folds, sweep.trials_at_once or sweep.trials, sweep.trials)


def sweep_tuner(
    setup: TrialSetup, at_once: int, budget: BudgetStopper, callback: ray.tune.Callback, trainable: Any
) -> ray.tune.Tuner:
    """Return Tune, ready to begin, or to go on with the same trials and ids where a command was stopped.

    ``trainable`` trains a trial, given its values and ``setup``; ``at_once`` trials are trained side by side.

    Raises:
        ProblemsFound: there are trials, and no state of Tune's that can be read.
    """
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOT_S
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the command, as everywhere else
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the spools are the metric table
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # our callback prints what happens
    # trials that were begun on a larger cluster may wait for each other on this one
    set_ray_train_defaults()
    sweep, folder = setup.sweep, setup.folder
    # a trial's own process only waits for its folds, on the head node, which stays; or it learns from failures itself
    takes = {HEAD_NODE: 0.001}
    if sweep.of_failures:
        worker = setup.slots.fold.worker
        takes = {"CPU": worker.cpus, "GPU": worker.gpus}
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(trainable, setup=setup), ray.tune.PlacementGroupFactory([takes])
    )
    begun = can_go_on(folder, sweep)
    first = base_values(sweep.space, setup.base) if sweep.base_first else None
    config = tune_config(sweep, setup.base.training.epochs, at_once, first)
    # a trial whose process dies with its own work goes on; that of others outlives the workers of its folds
    deaths = ray.tune.FailureConfig(max_failures=MAX_WORKER_DEATHS if sweep.of_failures else 0)
    run_config = ray.tune.RunConfig(
        name=folder.tune.name,
        storage_path=str(folder.root),
        callbacks=[callback],
        stop=budget,
        failure_config=deaths,
        verbose=0,
    )
    # created in any case: it writes tuner.pkl, which a kill may have torn
    tuner = ray.tune.Tuner(trainable, param_space=param_space(sweep), tune_config=config, run_config=run_config)
    if begun:
        replay_reports(config.scheduler, reported_table(folder.runs), sweep)
        tuner = ray.tune.Tuner.restore(str(folder.tune), trainable, resume_unfinished=True)
        # search and trials take up their state when it begins
        replace_restored(tuner, config, [callback], budget)
    return tuner
