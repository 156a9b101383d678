"""A run's folds, each alone and averaged, evaluated on another cohort with references."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from uncseg.config.case_lists import PatientList
from uncseg.config.task_files import write_task
from uncseg.console import console, show_warnings
from uncseg.dataset.cases import Case, digest_of_files
from uncseg.dataset.inputs import find_inputs
from uncseg.dataset.labels import as_convention, describe_convention
from uncseg.dataset.patients import require_patients
from uncseg.errors import DamagedFile, Problem, ProblemsFound
from uncseg.evaluation.expectation import WORDS, expected_dice_column, maps_of
from uncseg.evaluation.masks_task import ChosenTask
from uncseg.evaluation.summary import spearman
from uncseg.files import read_json, write_json
from uncseg.layout import RunFolder
from uncseg.report.score_tables import models_table, score_files, scores_table, summarize_models, write_scores
from uncseg.runs.model_sources import PredictionModel
from uncseg.runs.new_case_tasks import FOLD_MEAN, Record, predict_new_cases, prediction_names, predictions_in
from uncseg.runs.prediction_request import PredictionOptions
from uncseg.table_files import table_of, write_table
from uncseg.tasks.task import Task

COHORT = ".cohort"
"""JSON in the folder of a cohort's predictions: where the cohort lay, and its cases by content."""


def predict_cohort(
    run: RunFolder,
    model: PredictionModel,
    dataset: Path,
    chosen: ChosenTask,
    trust: bool,
    convention: str | None = None,
    patients: PatientList | str | None = None,
) -> tuple[dict[str, Record], list[Problem]]:
    """Predict and score the cases of a cohort that have a reference, except those that are already finished.

    Predictions go to ``external/NAME`` of the run, NAME being the cohort's folder.

    Args:
        chosen: the cohort's task, from :func:`~uncseg.runs.cohort_task.cohort_task`.
        convention: of that task, for the references; None: as the files are named.
        patients: who is a patient, see :func:`~uncseg.dataset.patients.as_patients`.

    Returns:
        The contents of CASE.json by case, and the problems of the cases that could not be predicted or scored.

    Raises:
        ProblemsFound: the run holds tables of another cohort of this name, or the patient of a case is not known.
    """
    output = run.root / "external" / dataset.name
    task = chosen.task
    known_convention = as_convention(convention, "--convention", task)
    scan = find_inputs(dataset, model.folder.dataset_json, "optional", known_convention, task=task)
    described = describe_convention(scan.convention, scan.convention_reason, task)
    for note in (chosen.note, described, *scan.notes):
        console.print(note, soft_wrap=True)
    found, cases = scan.cases, [case for case in scan.cases if case.reference is not None]
    problems = scan.problems + [
        Problem(case.case_id, "no reference", "a segmentation of it", "add it, or use uncseg predict")
        for case in found
        if case.reference is None
    ]
    known = require_patients([case.case_id for case in cases], patients, task)
    content = {case.case_id: _content(case) for case in cases}
    _refuse_another(output / COHORT, dataset, content)
    claimed = predictions_in(output, "--dataset").claimed(prediction_names(cases, model.task, overlays=False))
    console.print(f"patients: {known}", soft_wrap=True)
    show_warnings(known.warnings)
    reads, writes = {"--dataset": dataset}, {"RUN": run.root}
    options = PredictionOptions(scores=True, scored_as=task)
    with claimed:
        write_json(output / COHORT, {"path": str(dataset), "cases": content})
        records, failed = predict_new_cases(model, cases, output, options, trust, reads, writes)
    for case, record in records.items():
        record["scores"] = [row | {"patient": known.of[case]} for row in record["scores"]]
    return records, problems + failed


def _content(case: Case) -> str:
    try:
        return digest_of_files(case)
    except OSError:  # whoever reads the file gives the cause
        return ""


def _refuse_another(file: Path, dataset: Path, content: Mapping[str, str]) -> None:
    """Refuse a second cohort under the same name: its tables would overwrite those of the first.

    A cohort that was moved has cases of the first, with the same content; it may have more, or fewer. A record that is
    damaged tells nothing.
    """
    try:
        before = read_json(file, keys=("path", "cases"))
        then = dict(before["cases"])
    except (DamagedFile, TypeError, ValueError):  # also where there is none
        return
    both = then.keys() & content.keys()
    moved = bool(both) and all(then[case] == content[case] for case in both)
    if before["path"] != str(dataset) and not moved:
        found, expected = f"{dataset}, and {file.parent.name} was {before['path']}", "another name for another cohort"
        problem = Problem("--dataset", found, expected, f"rename the folder, or move {file.parent} away")
        raise ProblemsFound("The cohort's name is taken.", [problem])


def cohort_files(name: str) -> list[str]:
    """Return the files of :func:`write_cohort_tables` that people read, and may edit, relative to the run's folder."""
    others = (f"external_{name}_{part}" for part in ("task.yaml", "folds.csv", "cases.csv"))
    return [f"tables/{file}" for file in (*score_files(f"external_{name}"), *others) if not file.endswith(".parquet")]


def write_cohort_tables(run: RunFolder, name: str, records: dict[str, Record], task: Task) -> None:
    """Write and print the tables ``external_NAME…`` of a cohort.

    They hold the scores of all folds together, those of each fold and estimator (``…_folds``), and what was expected of
    each case (``…_cases``).
    """
    rows = table_of(row for record in records.values() for row in record["scores"])
    together = rows[rows["model"] == FOLD_MEAN].drop(columns="model").sort_values(["case"], kind="stable")
    together = together.dropna(axis=1, how="all")  # columns of a map that these networks do not have
    summary = write_scores(together, run.tables, f"external_{name}")
    write_task(run.tables / f"external_{name}_task.yaml", task)
    folds = summarize_models(rows.drop(columns="reliability", errors="ignore"))
    write_table(folds, run.tables, f"external_{name}_folds")
    chosen = maps_of(table_of(records.values(), words=WORDS))
    title = f"Scores of {len(records)} case{'s' * (len(records) != 1)}"
    console.print(scores_table(summary, title, chosen).to_rich())
    console.print(models_table(folds, task).to_rich())
    console.print(f"tables: {run.tables}/external_{name}*", soft_wrap=True)
    table = expectation_table(together, records, task)
    write_table(table, run.tables, f"external_{name}_cases")
    for line in expectation_lines(table, task):
        console.print(line)


def expectation_table(scores: pd.DataFrame, records: dict[str, Record], task: Task) -> pd.DataFrame:
    """Return one row per case: the Dice of its main region, the Dice that was expected, and whether to review it."""
    dices = scores[scores["region"] == task.main_region].set_index("case")["dice"]
    cases = table_of((records[case] for case in sorted(records)), words=WORDS)
    dice, expected = f"dice_{task.main_key}", expected_dice_column(task)
    cases[dice] = cases["case"].map(dices)
    return cases.reindex(columns=["case", dice, expected, "review", "review_reason"])


def expectation_lines(cases: pd.DataFrame, task: Task) -> list[str]:
    """Return sentences on how well the expected Dice and the flags of :func:`expectation_table` predict the Dice."""
    real, expected, name = f"dice_{task.main_key}", expected_dice_column(task), f"{task.main_region} Dice"
    known, lines = cases.dropna(subset=[expected]), []
    if len(known):
        correlation = spearman(known[expected].to_numpy(float), known[real].to_numpy(float))
        error = known[expected] - known[real]
        value = "unknown (too few cases, or all alike)" if math.isnan(correlation) else f"{correlation:.3f}"
        lines = [
            f"expected and real {name} of {len(known)} cases: Spearman {value}",
            f"error of the expected Dice: mean {error.mean():+.3f}, mean absolute {error.abs().mean():.3f}",
        ]
    flagged, others = (cases.loc[cases["review"] == flag, real] for flag in (True, False))
    line = f"flagged for review: {len(flagged)} of {len(cases)} cases, so there is nothing to compare"
    if len(flagged) and len(others):
        line = f"flagged for review: {len(flagged)} cases with a mean {name} of {flagged.mean():.3f}; "
        line += f"the other {len(others)}: {others.mean():.3f}"
    return [*lines, line]
