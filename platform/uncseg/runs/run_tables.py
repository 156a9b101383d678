"""A run's finished folds evaluated out of fold, and written as tables, figures and a report."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from uncseg.config.experiment import Experiment
from uncseg.console import command_line, console, counting, warn
from uncseg.dataset.preparation import chosen_cases
from uncseg.errors import Problem, listed
from uncseg.evaluation.expectation import maps_of
from uncseg.evaluation.failure_table import failures_table, regions_table, table3, table4, verdicts
from uncseg.evaluation.page_tables import dice_table, uncertainty_table
from uncseg.evaluation.tables import beats_floor, table1, table2
from uncseg.layout import RunFolder
from uncseg.partial_files import remove_partial
from uncseg.report.run_figures import FIGURES, ReportedRun, draw_run, page_outputs
from uncseg.report.run_report import PAGE, PAGE_TABLES, write_report
from uncseg.report.score_tables import score_files, scores_table, write_scores
from uncseg.runs.cross_fitting import learn_failures
from uncseg.runs.fold_request import RunRequest
from uncseg.runs.out_of_fold import evaluate_out_of_fold
from uncseg.runs.run_data import cases_of_other_files
from uncseg.runs.training_gap import gap_lines, measure_gap
from uncseg.table_files import read_table, write_table
from uncseg.tracking.run_settings import read_task
from uncseg.tracking.spool import epoch_table

TABLES = ("per_case", "per_region", "epochs", "table1", "table2", "table3", "table4")
GAP = "gap"
PEOPLES_FILES = tuple(
    f"tables/{name}"
    for name in (*(f"{name}.csv" for name in (*TABLES, GAP)), *score_files("scores"))
    if ".parquet" not in name
)
"""Files of an evaluation that people read, and may edit; Parquet is for programs."""


def require_own_files(run: RunFolder) -> None:
    """Refuse an evaluation that would overwrite files of someone else in the run's folder, or ours that were edited.

    Raises:
        ProblemsFound: naming each (exit code 2).
    """
    outputs = page_outputs(run)
    outputs.adopt_older(PEOPLES_FILES, run.tables / "per_case.parquet")
    outputs.require_own([PAGE, *PAGE_TABLES, *FIGURES, *PEOPLES_FILES])


def evaluate_and_write_tables(request: RunRequest, folds: Sequence[int]) -> list[Problem]:
    """Predict and score every case of the given folds, then write and print the run's tables and figures.

    Returns:
        A problem for each case and fold that the folds could not learn failures from (their maps are missing), and for
        each case that the gap could not be measured on.

    Raises:
        ProblemsFound: naming every case that could not be evaluated, or every table that someone has edited meanwhile;
            what is predicted and scored is kept.
    """
    experiment, run = request.experiment, request.run
    remove_partial(run.root)
    cases, _ = chosen_cases(experiment)
    with counting() as progress:
        problems = learn_failures(request, folds, progress)
        per_case, scores, per_region = evaluate_out_of_fold(
            request, folds, cases, partial(progress, "out-of-fold cases")
        )
    if per_case["uncertainty_from"].isna().all():
        warn("no case has an uncertainty yet: without the head it is learnt from failures, once all folds are trained")
    last_epochs = experiment.evaluation.last_epochs
    epochs = epoch_table(run.spool)
    epochs = epochs[epochs["fold"].isin(folds)]
    task = experiment.dataset.task
    first = table1(per_case, task, baseline_table(experiment, per_case))
    second, third = table2(per_case, epochs, last_epochs, task), table3(per_case)
    fourth = table4(per_region)
    with page_outputs(run).noting(among=PEOPLES_FILES):
        frames = (per_case, per_region, epochs, first, second, third, fourth)
        for frame, name in zip(frames, TABLES, strict=True):
            write_table(frame, run.tables, name)
        summary = write_scores(scores, run.tables, "scores")
    reported = ReportedRun(run.root.name, run, experiment, cases)
    draw_run(reported)
    try:
        with page_outputs(run).claimed([PAGE, *PAGE_TABLES]):
            console.print(f"report:  {write_report([reported])}", soft_wrap=True)
    except Exception as error:  # the report shows nothing that is not in the tables
        again = command_line("uncseg", "report", run.root)
        warn(f"no report ({error}); once that is fixed: {again}")
    by_region = [failures_table(third, task), regions_table(fourth)]
    for table in (
        scores_table(summary, chosen=maps_of(per_case)),
        dice_table(first, task),
        uncertainty_table(second, last_epochs, task),
        *by_region,
    ):
        console.print(table.to_rich())
    for line in (*verdicts(third), *beats_floor(second)):
        console.print(line)
    return problems + _write_gap(request, folds, {case.case_id: case.patient for case in cases})


def _write_gap(request: RunRequest, folds: Sequence[int], patients: dict[str, str]) -> list[Problem]:
    """Write and print the gap between training and new cases, where it is asked for; return what went wrong."""
    if not request.experiment.evaluation.training_gap_cases:
        return []
    with counting() as progress:
        rows, problems = measure_gap(request, folds, patients, partial(progress, "cases for the gap"))
    if len(rows):
        with page_outputs(request.run).noting(among=[f"tables/{GAP}.csv"]):
            write_table(rows, request.run.tables, GAP)
    for line in gap_lines(rows):
        console.print(line)
    return problems


def baseline_table(experiment: Experiment, per_case: pd.DataFrame) -> pd.DataFrame | None:
    """Return the per-case table of the run without the head, if it has the same cases, folds and regions."""
    if experiment.evaluation.baseline is None:
        return None
    run, task = RunFolder(experiment.storage.path.resolve() / experiment.evaluation.baseline), experiment.dataset.task
    file, reason = run.tables / "per_case.parquet", "does not exist yet"
    if (baseline := read_table(run.tables, "per_case")) is not None:
        baseline = baseline[baseline["fold"].isin(per_case["fold"])]
        ours, theirs = (set(map(tuple, table[["case", "fold"]].to_numpy())) for table in (per_case, baseline))
        same_task = read_task(run).numbers == task.numbers
        other = cases_of_other_files(run, RunFolder(experiment.run_folder), per_case["case"])
        if ours == theirs and same_task and not other:
            return baseline
        reason = "holds other cases or folds" if ours != theirs else "holds other regions or labels"
        reason = f"was made from other files of {listed(other)}" if ours == theirs and same_task else reason
    warn(f"Table 1 has no column without the head: {file} {reason}.")
    return None
