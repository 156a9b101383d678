"""``uncseg cross-validate``: prepare, train the folds, evaluate out of fold, keep MLflow filled."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import Slots
from uncseg.cluster.session import exit_without_waiting, ray_session, terminated_like_ctrl_c
from uncseg.config.experiment import Experiment
from uncseg.console import console, counting
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.provenance import describe_source, describe_versions, git_commit
from uncseg.runs.ensemble_members import all_members_done, member_experiment, member_tasks
from uncseg.runs.fold_progress import FoldProgress
from uncseg.runs.fold_task import FoldTask
from uncseg.runs.judged_run import require_judged_run, require_same_data
from uncseg.runs.preflight import preflight, require_storage
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_opening import finished_folds, locked_folds, open_run, refuse_other_settings
from uncseg.runs.run_plan import print_plan
from uncseg.runs.run_tables import evaluate_and_write_tables
from uncseg.runs.step_timing import time_steps
from uncseg.runs.train_folds import train_folds
from uncseg.tracking.destination import Destination
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.record import MlflowRecord, RunDescription
from uncseg.tracking.syncer import Syncer


def cross_validate(
    experiment: Experiment, folds: Sequence[int] | None = None, dry_run: bool = False, trust: bool = False
) -> int:
    """Prepare, train the folds, predict every case out of fold, write the tables, fill MLflow.

    Args:
        folds: folds to train; None: all.
        dry_run: check everything and print the plan, train nothing.
        trust: let checkpoints that the run's folder holds already run code of their own.

    Returns:
        0, or 1 where a fold failed (the others are finished and evaluated).
    """
    folds = _chosen_folds(experiment, folds)
    run = RunFolder(experiment.run_folder)
    refuse_other_settings(experiment, run)
    require_judged_run(experiment, folds)
    begun = run.experiment.exists()
    write_missing_phantoms(experiment.dataset)
    with ray_session(experiment.resources.ray_address) as own_ray, terminated_like_ctrl_c():
        cluster = connected_cluster(experiment.resources, own_ray)
        slots = preflight(experiment, len(folds) * experiment.training.members, cluster, own_ray, begun)
        experiment = experiment.resolved()
        with counting() as progress:
            prepared = prepare_cases(experiment, progress=progress)
            require_same_data(experiment, folds, prepared)
            # on a machine of one's own the first epochs say the same for nothing
            todo = [fold for fold in folds if not all_members_done(experiment, run, fold)]
            measure = bool(todo) and (dry_run or not (own_ray or begun))
            calibration = time_steps(experiment, prepared, todo[0], slots, progress) if measure else None
        if not own_ray and connected_cluster(experiment.resources, own_ray).nodes != cluster.nodes:
            require_storage(experiment, own_ray)  # of nodes that have come meanwhile as well
        print_plan(experiment, prepared, folds, cluster, slots, calibration)
        if dry_run:
            return 0
        with locked_folds(run, folds):
            for number in range(experiment.training.members):
                open_run(member_experiment(experiment, number))
            update_manifest(run.manifest, digests=read_json(prepared.done)["digests"], versions=describe_versions())
            failed, left = _train_and_evaluate(_Work(experiment, prepared, run, folds, slots, trust, own_ray))
    _print_end(experiment, run, failed, left)
    return 1 if failed else 0


@dataclass(frozen=True)
class _Work:
    """What is trained, and with what."""

    experiment: Experiment
    prepared: PreparedFolder
    run: RunFolder
    folds: list[int]
    slots: Slots
    trust: bool
    own_ray: bool


def _train_and_evaluate(work: _Work) -> tuple[dict[int, str], int]:
    """What went wrong by fold, and the number of records that did not reach MLflow."""
    syncer = _syncer(work)
    syncer.start()
    outcome: Literal["finished", "failed", "interrupted"] = "interrupted"
    try:
        failed = _train(work)
        # folds that an earlier command trained belong to the run's tables too
        finished = finished_folds(work.experiment, work.run)
        if finished:
            evaluate_and_write_tables(work.experiment, work.prepared, work.run, finished, work.slots, work.trust)
        syncer.finish()
        outcome = "failed" if failed else "finished"
    except KeyboardInterrupt:
        syncer.stop("interrupted")
        console.print("stopped; the same command goes on from the last checkpoints")
        exit_without_waiting()
    finally:
        left = syncer.stop(outcome)
    return failed, left


def _chosen_folds(experiment: Experiment, folds: Sequence[int] | None) -> list[int]:
    possible = range(experiment.split.folds)
    if folds is None:
        return list(possible)
    wrong = [fold for fold in folds if fold not in possible]
    if wrong or not folds:
        found = ", ".join(map(str, wrong)) or "no fold"
        expected = f"folds from 0 to {possible[-1]}"
        raise ProblemsFound("The folds cannot be trained.", [Problem("--folds", found, expected, "correct the list")])
    return sorted(set(folds))


def _syncer(work: _Work) -> Syncer:
    tags = {f"{name}_digest": value for name, value in read_json(work.prepared.done)["digests"].items()}
    tags |= {f"version_{name}": value for name, value in describe_versions().items()}
    commit = git_commit(Path(__file__).parent)
    tags |= describe_source("uncseg cross-validate", commit) | ({} if commit is None else {"git_commit": commit})
    content = work.experiment.model_dump(mode="json")
    description = RunDescription.from_experiment(content, work.run.root.name, tags)
    return Syncer(work.run, Destination.from_experiment(work.experiment), description, work.folds)


def _train(work: _Work) -> dict[int, str]:
    processes, experiment = work.slots.fold.processes, work.experiment
    tasks = [
        one
        for fold in work.folds
        for one in member_tasks(
            FoldTask(experiment, work.prepared, work.run, fold, work.slots.cpus_per_process, processes, work.trust)
        )
    ]
    shown = [
        FoldProgress(work.run.member(n), work.folds, experiment.training.epochs, f"member {n} " if n else "")
        for n in range(1, experiment.training.members)
    ]
    with FoldProgress(work.run, work.folds, experiment.training.epochs).shown() as progress:
        ended = train_folds(tasks, work.slots, lambda: _show([progress, *shown]), work.own_ray)
    failed = {task.fold: message for task, message in ended}
    for task, message in ended:
        of_member = "" if task.run == work.run else f" of member {task.run.root.name}"
        console.print(f"fold {task.fold}{of_member} failed: {message}")
    return failed


def _show(folds: Sequence[FoldProgress]) -> None:
    for progress in folds:
        progress()


def _how_to_look(tracking_uri: str, run: RunFolder) -> str:
    """A server's address; for a database the command that opens the UI, as short as it can be typed here."""
    if tracking_uri.startswith("http"):
        return tracking_uri
    command, here = Path(sys.executable).with_name("uncseg"), Path.cwd()
    name = str(command.relative_to(here) if command.is_relative_to(here) else command)
    folder = run.root.relative_to(here) if run.root.is_relative_to(here) else run.root
    return f"{'uncseg' if shutil.which('uncseg') == str(command) else name} ui {folder}"


def _print_end(experiment: Experiment, run: RunFolder, failed: dict[int, str], left: int) -> None:
    console.print(f"tables:  {run.tables}\nfigures: {run.figures}\nmaps:    {run.out_of_fold}")
    console.print(f"MLflow:  {_how_to_look(experiment.tracking_uri, run)}", soft_wrap=True)
    registered = MlflowRecord.read(run.manifest).parent.version
    if registered:
        console.print(f"model:   models:/{registered}", soft_wrap=True)
    if left:
        console.print(f"{left} records did not reach MLflow; when it is back: uncseg sync {run.root}")
    if failed:
        console.print(f"failed folds: {', '.join(map(str, sorted(failed)))}; the same command tries them again")
