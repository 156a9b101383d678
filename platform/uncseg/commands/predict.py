"""``uncseg predict``: new cases, by one fold or several together."""

from collections.abc import Sequence
from pathlib import Path

from uncseg.console import console, warn
from uncseg.dataset.inputs import find_inputs
from uncseg.dataset.told_task import names_of_other_tasks
from uncseg.errors import raise_if_any
from uncseg.evaluation.expectation import WORDS
from uncseg.runs.model_sources import PredictionModel, find_model
from uncseg.runs.new_case_tasks import (
    PREDICTIONS,
    Record,
    predict_new_cases,
    prediction_names,
    predictions_in,
    refuse_options,
)
from uncseg.runs.prediction_request import PredictionOptions
from uncseg.table_files import table_of, write_table


def predict_folder(
    source: str,
    folder: Path,
    output: Path,
    options: PredictionOptions,
    folds: Sequence[int] | None = None,
    overrides: list[str] | None = None,
    trust: bool = False,
) -> int:
    """Predict every case of a folder, except those that are already finished.

    Args:
        folder: of one case or many, or nnU-Net's input files; references are not needed.
        output: folder for CASE.nii.gz, CASE_uncertainty.nii.gz, CASE_between_folds.nii.gz, one map per estimator of
            evaluation.estimators, and CASE.json.
        options: what else to write.
        source, folds, overrides, trust: see :func:`~uncseg.runs.model_sources.find_model`.

    Raises:
        ProblemsFound: naming every case that could not be predicted; the others are finished. Or another command
            writes to the output, or files of these names are not uncseg's (exit code 2).
    """
    model = find_model(source, output, folds, overrides, trust)
    refuse_options(model, options)
    scan = find_inputs(folder.resolve(), model.folder.dataset_json, skip=output, task=model.task)
    reads, writes = {"INPUT": folder, "MODEL": model.folder.root}, {"OUTPUT": output}
    outputs = predictions_in(output)
    with outputs.claimed(prediction_names(scan.cases, model.task, options.overlays)):
        records, failed = predict_new_cases(model, scan.cases, output, options, trust, reads, writes)
        for note in [*names_of_other_tasks([case.case_id for case in scan.cases], model.task), *scan.notes]:
            console.print(note, soft_wrap=True)
        if records:
            _show(output, model, records)
        else:  # a table of an earlier command would list cases whose files are gone
            outputs.remove([f"{PREDICTIONS}.parquet", f"{PREDICTIONS}.csv"])
    raise_if_any(scan.problems + failed, "Some cases could not be predicted.", exit_code=1)
    return 0


def _show(output: Path, model: PredictionModel, records: dict[str, Record]) -> None:
    """Write every case's record as a table in OUTPUT, and print the flagged cases."""
    rows = table_of((records[case] for case in sorted(records)), words=WORDS)
    table = rows.drop(columns=["source", "files", "folds", "warnings"])
    write_table(table, output, PREDICTIONS)
    for case in sorted(records):
        for warning in records[case]["warnings"]:
            warn(f"warning {case}: {warning}")
    for row in table[table["review"]].to_dict("records"):
        console.print(f"review {row['case']}: {row['review_reason']}")
    folds_text = f"fold{'s' * (len(model.folds) > 1)} {', '.join(map(str, model.folds))}"
    region = model.task.main_region
    reason = f"expected {region} Dice below {table['review_below'].iloc[0]:.3f}, or no {region} found"
    console.print(f"{len(table)} predicted by {folds_text}, {table['review'].sum()} flagged for review ({reason})")
    console.print(f"predictions: {output}", soft_wrap=True)
