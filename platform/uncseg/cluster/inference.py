"""Out-of-fold evaluation spread over the cluster: one Ray task a case, a bounded number in flight."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import ray

from uncseg.cluster.fold_worker import FoldTask
from uncseg.cluster.out_of_fold import evaluate_case
from uncseg.cluster.resources import Slots
from uncseg.config import Experiment
from uncseg.dataset.brats import BratsCase
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder


def evaluate_out_of_fold(
    experiment: Experiment,
    prepared: PreparedFolder,
    run: RunFolder,
    cases: Sequence[BratsCase],
    folds: Sequence[int],
    slots: Slots,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    trust: bool = False,
) -> pd.DataFrame:
    """Predict and score every validation case of the given folds, each by the fold that did not see it.

    Cases already done are not done again. ``trust`` lets checkpoints run code of their own.

    Returns:
        One row a case, sorted by fold and case; columns as ``evaluation.tables`` reads them.

    Raises:
        ProblemsFound: naming every case that could not be evaluated; the others are kept on disk.
    """
    by_id = {case.case_id: case for case in cases}
    splits = read_json(prepared.splits)
    # a worker keeps one fold's network loaded, so cases of a fold stay together
    todo = [
        (FoldTask(experiment, prepared, run, fold, slots.cpus, trust=trust), by_id[case])
        for fold in folds
        for case in splits[fold]["val"]
    ]
    rows, problems = _spread(todo, slots, progress)
    if problems:
        raise ProblemsFound("Some cases could not be evaluated.", problems, exit_code=1)
    return pd.DataFrame(rows).sort_values(["fold", "case"], ignore_index=True)


def _spread(
    todo: list[tuple[FoldTask, BratsCase]], slots: Slots, progress: Callable[[int, int], None]
) -> tuple[list[dict[str, Any]], list[Problem]]:
    remote = ray.remote(evaluate_case).options(
        num_cpus=slots.each.of_worker.cpus, num_gpus=slots.each.of_worker.gpus, max_retries=2
    )
    waiting = list(reversed(todo))
    running: dict[Any, BratsCase] = {}
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    while waiting or running:
        while waiting and len(running) < 2 * slots.most * slots.each.processes:
            task, case = waiting.pop()
            running[remote.remote(task, case)] = case
        (done,), _ = ray.wait(list(running), num_returns=1)
        case = running.pop(done)
        try:
            rows.append(ray.get(done))
        except Exception as error:
            what = str(error).strip().splitlines()[-1]
            problems.append(Problem(case.case_id, what, "a prediction", "mend the cause and run the command again"))
        progress(len(rows) + len(problems), len(todo))
    return rows, problems
