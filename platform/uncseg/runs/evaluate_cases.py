"""Cases spread over the cluster, a task each, where folds would train: out-of-fold evaluation, prediction."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from uncseg.cluster.resources import Slots
from uncseg.cluster.tasks import Piece, collect
from uncseg.cluster.workers import Workers
from uncseg.config.experiment import Experiment
from uncseg.dataset.brats import BratsCase
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.runs.fold_worker import FoldTask
from uncseg.runs.out_of_fold import evaluate_case


def evaluate_out_of_fold(
    experiment: Experiment,
    prepared: PreparedFolder,
    run: RunFolder,
    cases: Sequence[BratsCase],
    folds: Sequence[int],
    slots: Slots,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    trust: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict and score every validation case of the given folds, each by the fold that did not see it.

    Cases already done are not done again. ``trust`` lets checkpoints run code of their own.

    Returns:
        One row a case, columns as ``evaluation.tables`` reads them; and one a case and region, with the columns of
        ``evaluation.case_scores``. Both sorted by fold and case.

    Raises:
        ProblemsFound: naming every case that could not be evaluated; the others are kept on disk.
    """
    by_id = {case.case_id: case for case in cases}
    splits = read_json(prepared.splits)
    # a worker keeps a fold's network and its error memory, so cases of a fold stay together
    work = [
        (case, evaluate_case, (FoldTask(experiment, prepared, run, fold, slots.cpus, trust=trust), by_id[case]))
        for fold in folds
        for case in splits[fold]["val"]
    ]
    records, problems = run_cases(work, slots, progress)
    if problems:
        raise ProblemsFound("Some cases could not be evaluated.", problems, exit_code=1)
    per_case = pd.DataFrame([record["row"] for record in records.values()])
    scores = pd.DataFrame([row for record in records.values() for row in record["scores"]])
    order = ["fold", "case"]
    return (
        per_case.sort_values(order, ignore_index=True),
        scores.sort_values(order, ignore_index=True, kind="stable"),
    )


def run_cases(
    work: Sequence[Piece], slots: Slots, progress: Callable[[int, int], None]
) -> tuple[dict[str, Any], list[Problem]]:
    """Run every case's piece where a fold would train; what they return by case, a problem for each that failed."""
    with Workers(slots, len(work)) as workers:
        # the next case of each is there when one ends
        return collect(work, progress, lambda: 2 * workers.count(), "a prediction", workers.start)
