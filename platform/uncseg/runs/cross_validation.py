"""A cross-validation under way: its folds trained side by side, then evaluated, while MLflow is kept filled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from uncseg import stopping
from uncseg.console import warn
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.partial_files import remove_partial
from uncseg.provenance import describe_source, describe_versions, git_commit
from uncseg.report.skipped import skipped_lines
from uncseg.runs.cross_fitting import MISSING
from uncseg.runs.fold_progress import FoldProgress
from uncseg.runs.fold_request import RunRequest, member_requests
from uncseg.runs.run_opening import finished_folds, open_members
from uncseg.runs.run_tables import evaluate_and_write_tables
from uncseg.runs.train_folds import train_folds
from uncseg.tracking.destination import Destination
from uncseg.tracking.record import RunDescription
from uncseg.tracking.syncer import Syncer


def train_and_evaluate(request: RunRequest, folds: Sequence[int], own_ray: bool) -> tuple[dict[int, str], int]:
    """Train the folds, evaluate the finished ones, and fill MLflow. Ctrl-C ends the process.

    Returns:
        What went wrong, by fold, and the number of records that did not reach MLflow.

    Raises:
        ProblemsFound: naming every case that could not be evaluated; or, when all else is done, what folds could not
            learn from each other's failures, and where the gap to training cases could not be measured.
    """
    experiment, run = request.experiment, request.run
    problems: list[Problem] = []
    remove_partial(run.root)
    digests = open_members(experiment, request.prepared)
    syncer = Syncer(run, Destination.from_experiment(experiment), _describe(request, digests), folds)
    outcome: Literal["finished", "failed", "interrupted"] = "interrupted"
    with stopping.telling_of_the_end(lambda: syncer.stop("interrupted")):
        syncer.start()
        try:
            failed = _train(request, folds, own_ray)
            # folds that an earlier command trained belong to the run's tables too
            if finished := finished_folds(experiment, run):
                problems = _evaluate(request, finished)
            syncer.finish()
            outcome = "failed" if failed else "finished"
        finally:
            left = syncer.stop(outcome)
    raise_if_any(problems, MISSING, exit_code=1)
    return failed, left


def _evaluate(request: RunRequest, finished: Sequence[int]) -> list[Problem]:
    try:
        return evaluate_and_write_tables(request, finished)
    except ProblemsFound:
        warn("the trained folds are kept; once that is corrected, the same command goes on from here")
        raise


def _describe(request: RunRequest, digests: dict[str, str]) -> RunDescription:
    tags = {f"{name}_digest": value for name, value in digests.items()}
    tags |= {f"version_{name}": value for name, value in describe_versions().items()}
    commit = git_commit(Path(__file__).parent)
    tags |= describe_source("uncseg cross-validate", commit) | ({} if commit is None else {"git_commit": commit})
    return RunDescription.from_experiment(request.experiment.model_dump(mode="json"), request.run.root.name, tags)


def _train(request: RunRequest, folds: Sequence[int], own_ray: bool) -> dict[int, str]:
    run, training = request.run, request.experiment.training
    others = [
        FoldProgress(run.member(number), folds, training.epochs, f"member {number} ")
        for number in range(1, training.members)
    ]
    requests = [member for fold in folds for member in member_requests(request.fold(fold))]
    with FoldProgress(run, folds, training.epochs).shown() as progress:

        def show() -> None:
            for shown in (progress, *others):
                shown()

        ended = train_folds(requests, request.slots, show, own_ray)
    for failed, message in ended:
        member = "" if failed.run == run else f" of member {failed.run.root.name}"
        warn(f"fold {failed.fold}{member} failed: {message}")
    for line in skipped_lines(run, request.experiment):
        warn(line)
    return {failed.fold: message for failed, message in ended}
