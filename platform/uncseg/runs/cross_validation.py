"""A cross-validation under way: its folds trained side by side, then evaluated, while MLflow is kept filled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uncseg.cluster.resources import Slots
from uncseg.cluster.session import exit_without_waiting
from uncseg.config.experiment import Experiment
from uncseg.console import console
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.provenance import describe_source, describe_versions, git_commit
from uncseg.runs.ensemble_members import member_experiment, member_tasks
from uncseg.runs.fold_progress import FoldProgress
from uncseg.runs.fold_task import FoldTask
from uncseg.runs.run_opening import finished_folds, open_run
from uncseg.runs.run_tables import evaluate_and_write_tables
from uncseg.runs.train_folds import train_folds
from uncseg.tracking.destination import Destination
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.record import RunDescription
from uncseg.tracking.syncer import Syncer


@dataclass(frozen=True)
class CrossValidation:
    """What is trained and evaluated, and with what."""

    experiment: Experiment
    prepared: PreparedFolder
    run: RunFolder
    folds: list[int]
    slots: Slots
    trust: bool
    own_ray: bool


def train_and_evaluate(work: CrossValidation) -> tuple[dict[int, str], int]:
    """Train the folds, evaluate the finished ones, and fill MLflow. Ctrl-C ends the process.

    Returns:
        What went wrong, by fold, and the number of records that did not reach MLflow.

    Raises:
        ProblemsFound: naming every case that could not be evaluated.
    """
    experiment, run = work.experiment, work.run
    for number in range(experiment.training.members):
        open_run(member_experiment(experiment, number))
    digests = read_json(work.prepared.done)["digests"]
    update_manifest(run.manifest, digests=digests, versions=describe_versions())
    syncer = Syncer(run, Destination.from_experiment(experiment), _describe(work, digests), work.folds)
    syncer.start()
    outcome: Literal["finished", "failed", "interrupted"] = "interrupted"
    try:
        failed = _train(work)
        # folds that an earlier command trained belong to the run's tables too
        if finished := finished_folds(experiment, run):
            evaluate_and_write_tables(experiment, work.prepared, run, finished, work.slots, work.trust)
        syncer.finish()
        outcome = "failed" if failed else "finished"
    except KeyboardInterrupt:
        syncer.stop("interrupted")
        console.print("stopped; the same command goes on from the last checkpoints")
        exit_without_waiting()
    finally:
        left = syncer.stop(outcome)
    return failed, left


def _describe(work: CrossValidation, digests: dict[str, str]) -> RunDescription:
    tags = {f"{name}_digest": value for name, value in digests.items()}
    tags |= {f"version_{name}": value for name, value in describe_versions().items()}
    commit = git_commit(Path(__file__).parent)
    tags |= describe_source("uncseg cross-validate", commit) | ({} if commit is None else {"git_commit": commit})
    return RunDescription.from_experiment(work.experiment.model_dump(mode="json"), work.run.root.name, tags)


def _train(work: CrossValidation) -> dict[int, str]:
    experiment, run, slots = work.experiment, work.run, work.slots
    tasks = [
        FoldTask(experiment, work.prepared, run, fold, slots.cpus_per_process, slots.fold.processes, work.trust)
        for fold in work.folds
    ]
    epochs = experiment.training.epochs
    others = [
        FoldProgress(run.member(number), work.folds, epochs, f"member {number} ")
        for number in range(1, experiment.training.members)
    ]
    with FoldProgress(run, work.folds, epochs).shown() as progress:

        def show() -> None:
            for shown in (progress, *others):
                shown()

        ended = train_folds([member for task in tasks for member in member_tasks(task)], slots, show, work.own_ray)
    for task, message in ended:
        member = "" if task.run == run else f" of member {task.run.root.name}"
        console.print(f"fold {task.fold}{member} failed: {message}")
    return {task.fold: message for task, message in ended}
