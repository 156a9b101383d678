"""``uncseg cross-validate``: prepare, train the folds, evaluate them out of fold, keep MLflow filled."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.session import ray_session
from uncseg.commands.early_checks import folds_to_train
from uncseg.config.experiment import Experiment
from uncseg.console import command_line, console, counting, warn
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.errors import raise_if_any
from uncseg.layout import RunFolder
from uncseg.outputs import require_free
from uncseg.ownership import make_own
from uncseg.runs.cross_validation import train_and_evaluate
from uncseg.runs.fold_request import RunRequest, all_members_done
from uncseg.runs.needed_run import require_same_data
from uncseg.runs.preflight import preflight, require_storage
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_data import changed_split, kept_preparation
from uncseg.runs.run_opening import locked_folds, require_unchanged
from uncseg.runs.run_plan import print_plan
from uncseg.runs.run_tables import require_own_files
from uncseg.runs.step_timing import time_steps
from uncseg.tracking.record import MlflowRecord


def cross_validate(
    experiment: Experiment, folds: Sequence[int] | None = None, dry_run: bool = False, trust: bool = False
) -> int:
    """Prepare the cases, train the folds, predict every case out of fold, write the tables, fill MLflow.

    Args:
        experiment: as ``early_checks.check_training`` has checked it.
        folds: folds to train; None: all.
        dry_run: check everything and print the plan, but train nothing.
        trust: let checkpoints that the run's folder already holds run code of their own.

    Returns:
        0, or 1 if a fold failed (the others are finished and evaluated).
    """
    folds = folds_to_train(experiment, folds)
    run = RunFolder(experiment.run_folder)
    begun = run.experiment.exists()
    if not begun:
        require_free(run.root, "run")
    require_own_files(run)
    write_missing_phantoms(experiment.dataset)
    require_unchanged(run, experiment)
    with ray_session(experiment.resources.ray_address) as own_ray:
        cluster = connected_cluster(experiment.resources, own_ray)
        slots = preflight(experiment, len(folds) * experiment.training.members, cluster, own_ray, begun)
        experiment = experiment.resolved()
        with counting() as progress:
            prepared = prepare_cases(experiment, progress, kept_preparation(run, experiment))
            raise_if_any(changed_split(run, prepared), f"The split of the run {run.root} changed.")
            require_same_data(experiment, folds, prepared)
            request = RunRequest(experiment, prepared, run, slots, trust)
            # with a Ray of the command's own the first epochs tell the same at no cost
            todo = [fold for fold in folds if not all_members_done(experiment, run, fold)]
            measure = bool(todo) and (dry_run or not (own_ray or begun))
            timing = time_steps(request, todo[0], progress) if measure else None
        if not own_ray and connected_cluster(experiment.resources, own_ray).nodes != cluster.nodes:
            require_storage(experiment, own_ray)  # check the nodes that have joined meanwhile
        print_plan(request, folds, cluster, timing)
        if dry_run:
            return 0
        make_own(run.root)  # before the locks are in it
        with locked_folds(run, folds):
            failed, left = train_and_evaluate(request, folds, own_ray)
    _print_end(experiment, run, failed, left)
    return 1 if failed else 0


def _how_to_look(tracking_uri: str, run: RunFolder) -> str:
    """Return a server's address; for a database the command that shows it, as short as it can be typed here."""
    if tracking_uri.startswith("http"):
        return tracking_uri
    command, here = Path(sys.executable).with_name("uncseg"), Path.cwd()
    name = str(command.relative_to(here) if command.is_relative_to(here) else command)
    folder = run.root.relative_to(here) if run.root.is_relative_to(here) else run.root
    return command_line("uncseg" if shutil.which("uncseg") == str(command) else name, "ui", folder)


def _print_end(experiment: Experiment, run: RunFolder, failed: dict[int, str], left: int) -> None:
    console.print(f"tables:  {run.tables}\nfigures: {run.figures}\nmaps:    {run.out_of_fold}")
    console.print(f"MLflow:  {_how_to_look(experiment.tracking_uri, run)}", soft_wrap=True)
    if version := MlflowRecord.read(run.manifest).parent.version:
        console.print(f"model:   models:/{version}", soft_wrap=True)
    if left:
        again = command_line("uncseg", "sync", run.root)
        warn(f"{left} records did not reach MLflow; when it is back: {again}")
    if failed:
        warn(f"failed folds: {', '.join(map(str, sorted(failed)))}; the same command tries them again")
