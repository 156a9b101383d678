"""``uncseg evaluate RUN --dataset FOLDER``: the run's folds, each and averaged, on another cohort with references."""

import math
from pathlib import Path

import pandas as pd

from uncseg.commands.predict import PredictionOptions, predict_with
from uncseg.console import console
from uncseg.dataset.inputs import find_inputs
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.summary import spearman
from uncseg.files import write_text
from uncseg.layout import RunFolder
from uncseg.report.score_tables import models_table, scores_table, summarize_models, write_scores
from uncseg.runs.model_sources import find_model
from uncseg.table_files import write_table

MEAN = "mean"


def validate_externally(root: Path, dataset: Path, overrides: list[str] | None = None, trust: bool = False) -> int:
    """Predict and score another cohort; what is there already is not done again.

    Predictions go to ``external/NAME`` of the run (NAME the cohort's folder), tables to ``tables/external_NAME…``:
    scores of all folds together, ``…_folds`` of each fold too, ``…_cases`` what was expected of each case.

    Args:
        root: the run's folder.
        dataset: BraTS folder with references.
        overrides: ``FIELD=VALUE`` of resources and evaluation.
        trust: let checkpoints run code of their own.

    Raises:
        ProblemsFound: naming every case that could not be predicted or scored; the others are done.
    """
    run = RunFolder(root.resolve())
    model = find_model(str(root), run.root, None, overrides, trust)
    name = dataset.resolve().name
    output = run.root / "external" / name
    found, problems = find_inputs(dataset.resolve(), model.folder.dataset_json)
    cases = [case for case in found if case.reference is not None]
    problems += [
        Problem(case.case_id, "no reference", "a segmentation of it", "add it, or use uncseg predict")
        for case in found
        if case.reference is None
    ]
    _refuse_another(output / ".cohort", dataset.resolve())
    writes, reads = {"RUN": run.root}, {"--dataset": dataset}
    records, failed = predict_with(
        model, cases, output, PredictionOptions(scores=True), trust, writes=writes, reads=reads, what=f"cases of {name}"
    )
    if records:
        _report(run, name, records)
    if problems + failed:
        raise ProblemsFound("Some cases could not be evaluated.", problems + failed, exit_code=1)
    return 0


def _refuse_another(file: Path, dataset: Path) -> None:
    """Tables of two cohorts under one name would overwrite each other."""
    if file.is_file() and (before := file.read_text(encoding="utf-8").strip()) != str(dataset):
        found, expected = f"{dataset}, and {file.parent.name} was {before}", "another name for another cohort"
        problem = Problem("--dataset", found, expected, f"rename the folder, or remove {file.parent}")
        raise ProblemsFound("The cohort's name is taken.", [problem])
    write_text(file, f"{dataset}\n")


def _report(run: RunFolder, name: str, records: dict[str, dict]) -> None:
    rows = pd.DataFrame([row for record in records.values() for row in record["scores"]])
    together = rows[rows["model"] == MEAN].drop(columns="model").sort_values(["case"], kind="stable")
    together = together.dropna(axis=1, how="all")  # of a map that these networks do not have, and others may
    summary = write_scores(together, run.tables, f"external_{name}")
    folds = summarize_models(rows.drop(columns="reliability", errors="ignore"))
    write_table(folds, run.tables, f"external_{name}_folds")
    console.print(scores_table(summary, f"Scores of {len(records)} case{'s' * (len(records) != 1)}").to_rich())
    console.print(models_table(folds).to_rich())
    console.print(f"tables: {run.tables}/external_{name}*", soft_wrap=True)
    wt = together[together["region"] == "WT"].set_index("case")
    cases = pd.DataFrame(
        [
            {
                "case": case,
                "dice_wt": wt.loc[case, "dice"],
                "expected_dice_wt": record.get("expected_dice_wt", float("nan")),
                "review": record["review"],
                "review_reason": record["review_reason"],
            }
            for case, record in sorted(records.items())
        ]
    )
    write_table(cases, run.tables, f"external_{name}_cases")
    for line in expectation_lines(cases):
        console.print(line)


def expectation_lines(cases: pd.DataFrame) -> list[str]:
    """What the expected Dice and the review flag are worth, a line each.

    Args:
        cases: dice_wt, expected_dice_wt, review.
    """
    known = cases.dropna(subset=["expected_dice_wt"])
    found = spearman(known["expected_dice_wt"].to_numpy(float), known["dice_wt"].to_numpy(float))
    off = known["expected_dice_wt"] - known["dice_wt"]
    lines = []
    if len(known):
        worth = "not known of so few, or all alike" if math.isnan(found) else f"{found:.3f}"
        lines = [
            f"expected and real WT Dice of {len(known)} cases: Spearman {worth}",
            f"the expected one is off by {off.mean():+.3f} on average, by {off.abs().mean():.3f} a case",
        ]
    flagged, others = (cases.loc[cases["review"] == flag, "dice_wt"] for flag in (True, False))
    if len(flagged) and len(others):
        lines.append(
            f"flagged for review: {len(flagged)} cases of mean WT Dice {flagged.mean():.3f}; "
            f"the other {len(others)}: {others.mean():.3f}"
        )
    else:
        lines.append(f"flagged for review: {len(flagged)} of {len(cases)} cases, so there is nothing to compare")
    return lines
