"""Out-of-fold evaluation: every case predicted and scored by the fold that did not see it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from uncseg.cluster.tasks import map_cases_on_workers
from uncseg.config.task_files import TASK_FILE, write_task
from uncseg.config.training_sections import PROTOCOLS
from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.cases import Case
from uncseg.dataset.splits import read_splits
from uncseg.dataset.volumes import Geometry, read_volume, write_volume
from uncseg.errors import raise_if_any
from uncseg.estimators.floors import best_constant
from uncseg.estimators.registry import AGAINST_DECISION, SEVERAL_PASS_MAPS
from uncseg.evaluation.case_scores import ScoreRow, score_case
from uncseg.evaluation.expectation import WORDS, around_prediction, expected_dice, expected_dice_column
from uncseg.evaluation.figures import region_dices
from uncseg.evaluation.overlap import dice, main_mask, region_mask
from uncseg.evaluation.uncertainty import protocol_mask, score_failures, score_map
from uncseg.files import digest
from uncseg.kept_records import compute_once
from uncseg.layout import UNCERTAINTY, UNMASKED, CaseFiles, case_maps, main_probability, maps_beside_segmentation
from uncseg.method.failures.margins import against_decision
from uncseg.metric_keys import case_key, opinion_key
from uncseg.runs.fold_prediction import Prediction, as_batch, one_pass_maps, predict_case, source_digest
from uncseg.runs.fold_request import FoldRequest, RunRequest
from uncseg.runs.run_data import content_digest
from uncseg.table_files import table_of
from uncseg.tasks.task import Task

SECOND_OPINIONS_VERSION = "second opinions 1"
"""To be raised when the scores of estimators of several passes change."""


def evaluate_out_of_fold(
    request: RunRequest, folds: Sequence[int], cases: Sequence[Case], progress: Callable[[int, int], None]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Predict and score every validation case of the given folds, one Ray task per case, unless that is done.

    Returns:
        A table with one row per case, in the columns that ``evaluation.tables`` reads, and two with one row per case
        and region: in the columns of ``evaluation.case_scores``, and in those that ``evaluation.failure_table`` reads.
        All are sorted by fold and case.

    Raises:
        ProblemsFound: naming every case that could not be evaluated; the others are kept on disk.
    """
    write_task(request.run.out_of_fold / TASK_FILE, request.experiment.dataset.task)
    by_id = {case.case_id: case for case in cases}
    splits = read_splits(request.prepared.splits)
    # a worker keeps a fold's network and its error memory, so the cases of a fold stay together
    calls = [(case, evaluate_case, (request.fold(fold), by_id[case])) for fold in folds for case in splits[fold]["val"]]
    records, problems = map_cases_on_workers(calls, request.slots, progress)
    raise_if_any(problems, "Some cases could not be evaluated.", exit_code=1)
    per_case = table_of((record["row"] for record in records.values()), words=WORDS)
    scores, per_region = (
        table_of(row for record in records.values() for row in record[name]).sort_values(
            ["fold", "case"], ignore_index=True, kind="stable"
        )
        for name in ("scores", "regions")
    )
    return per_case.sort_values(["fold", "case"], ignore_index=True), scores, per_region


def evaluate_case(request: FoldRequest, case: Case) -> dict[str, Any]:
    """Predict and score one case and write its files, unless the same checkpoint has already done so.

    The record's ``row`` has the columns of ``evaluation.tables``, its ``scores`` are :func:`region_scores`, its
    ``regions`` say how well each region's maps tell where the decision on it is wrong.
    """
    torch.set_num_threads(request.cpus)
    record = CaseFiles(request.run.out_of_fold, case.case_id).scores
    chosen = request.experiment.evaluation.uncertainty
    told = [
        *([chosen] if chosen else []),
        *([SECOND_OPINIONS_VERSION] if request.experiment.evaluation.estimators.several_pass else []),
    ]
    source = digest([source_digest(request), content_digest(request.run, case), *told])
    return compute_once(record, source, lambda: _evaluate(request, case))


def _evaluate(request: FoldRequest, case: Case) -> dict[str, Any]:
    files = CaseFiles(request.run.out_of_fold, case.case_id)
    try:
        return _predict_and_score(request, case, files)
    except Exception:
        files.remove(request.experiment.dataset.task)  # some may be new, and others of an earlier checkpoint
        raise


def _predict_and_score(request: FoldRequest, case: Case, files: CaseFiles) -> dict[str, Any]:
    task = request.experiment.dataset.task
    reference, geometry = read_reference(case, task)
    image = read_volume(case.images[0])
    prediction = predict_case(request, case.case_id)
    predicted = main_mask(prediction.labels, task)
    name, unmasked = prediction.uncertainty or (None, None)
    masked = around_prediction(unmasked, predicted)
    written = _write_case(files, prediction, masked, image.geometry, task)
    brain = image.voxels != 0
    keys = {"case": case.case_id, "patient": case.patient, "fold": request.fold}
    scores = [keys | row for row in region_scores(reference, prediction.labels, masked, brain, geometry, task)]
    expected = math.nan if masked is None or not predicted.any() else expected_dice(predicted, masked)
    row = keys | _overlap_row(scores, task) | {expected_dice_column(task): expected, "uncertainty_from": name}
    row |= _uncertainty_row(case, reference, prediction, task) | _several_pass_row(reference, prediction, task)
    regions = [keys | found for found in _failures_by_region(reference, prediction, task)]
    return {"files": [file.name for file in written], "row": row, "scores": scores, "regions": regions}


def _write_case(
    files: CaseFiles, prediction: Prediction, masked: np.ndarray | None, geometry: Geometry, task: Task
) -> list[Path]:
    """Write labels and maps, and return their files; ``masked`` is the uncertainty inside the dilated prediction."""
    write_volume(files.segmentation, prediction.labels.astype(np.uint8), geometry)
    maps = {main_probability(task): prediction.p_main} | prediction.maps
    if prediction.uncertainty is not None and masked is not None:
        # Table 2 uses each protocol's own mask
        maps |= {UNCERTAINTY: masked, UNMASKED: prediction.uncertainty[1]}
    for estimate in prediction.estimates.values():
        maps |= estimate.maps
    known = [name for name in (*case_maps(task), *SEVERAL_PASS_MAPS) if name in maps]
    for name in {*maps_beside_segmentation(task)} - {*known}:  # of an earlier evaluation, by other settings
        files.map(name).unlink(missing_ok=True)
    for name in known:
        write_volume(files.map(name), maps[name].astype(np.float32), geometry)
    return [files.segmentation, *map(files.map, known)]


def region_scores(
    reference: np.ndarray,
    labels: np.ndarray,
    uncertainty: np.ndarray | None,
    brain: np.ndarray,
    geometry: Geometry,
    task: Task,
) -> list[ScoreRow]:
    """Return one row of scores per region; one map stands for the main region and those within it, as in the challenge.

    Args:
        reference, labels: (D, H, W), as the task numbers labels.
        uncertainty: in [0, 1], 0 outside the dilated prediction; None: labels are scored alone.
        brain: bool.
        geometry: the reference's, for the spacing.
        task: what the labels mean.
    """
    maps = None if uncertainty is None else dict.fromkeys(task.regions_of_map, uncertainty)
    return score_case(reference, labels, geometry.spacing_dhw_mm, task, maps, brain)


def _overlap_row(scores: Sequence[dict[str, Any]], task: Task) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for score in scores:
        name = task.region_keys[score["region"]]
        row |= {f"dice_{name}": score["dice"], f"reference_{name}_ml": score["reference_volume_ml"]}
        row |= {f"predicted_{name}_ml": score["predicted_volume_ml"], f"failure_rate_{name}": score["failure_rate"]}
    row["dice_mean"] = float(np.mean([row[column] for column in region_dices(task)]))
    return row


def _uncertainty_row(case: Case, reference: np.ndarray, prediction: Prediction, task: Task) -> dict[str, Any]:
    reference_main, predicted_main = main_mask(reference, task), main_mask(prediction.labels, task)
    failure = reference_main != predicted_main
    visited = prediction.maps["visited"] > 0.5
    maps = one_pass_maps(case, prediction, predicted_main)
    row: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        mask = protocol_mask(reference_main, predicted_main, protocol)
        row[f"visited_share_{protocol}"] = float(visited[mask].mean()) if mask.any() else float("nan")
        for name, estimate in (maps | {"constant": _constant(failure, mask)}).items():
            # the memory knows only what was visited; everything else is judged on the whole mask
            seen = mask & visited if name == "variance_stable" else mask
            scores = (score_failures if protocol == "union" else score_map)(estimate, failure, seen)
            row |= {case_key(name, protocol, kind): value for kind, value in scores.items()}
        row[f"mask_voxels_{protocol}"] = int(mask.sum())
    return row


def _failures_by_region(reference: np.ndarray, prediction: Prediction, task: Task) -> list[dict[str, Any]]:
    """Return one row per region: its maps against the failures of the decision on it, in its own union mask."""
    rows = []
    for region, predicted in prediction.regions.items():
        expected = region_mask(reference, region, task)
        failure, mask = expected != predicted.chosen, protocol_mask(expected, predicted.chosen, "union")
        row: dict[str, Any] = {"region": region}
        for name, values in (predicted.maps() | {"constant": _constant(failure, mask)}).items():
            scores = score_failures(values, failure, mask)
            row |= {case_key(name, "union", kind): value for kind, value in scores.items()}
        rows.append(row)
    return rows


def _constant(failure: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the best constant map of a mask, (D, H, W) float32."""
    both = (as_batch(values.astype(np.float32)) for values in (failure, mask))
    return best_constant(*both)[0, 0].numpy()


def _several_pass_row(reference: np.ndarray, prediction: Prediction, task: Task) -> dict[str, Any]:
    """Maps of several predictions, each against the failure of their own mean, and of the run's own decision."""
    row: dict[str, Any] = {}
    reference_main, decided = main_mask(reference, task), main_mask(prediction.labels, task)
    judged = reference_main != decided, protocol_mask(reference_main, decided, "union")
    for estimator, estimate in prediction.estimates.items():
        labels = estimate.labels
        predicted_main = main_mask(labels, task)
        for region, key in task.region_keys.items():
            overlap = dice(region_mask(reference, region, task), region_mask(labels, region, task))
            row[f"dice_{key}/{estimator}"] = overlap
        failure = reference_main != predicted_main
        for protocol in PROTOCOLS:
            mask = protocol_mask(reference_main, predicted_main, protocol)
            for name, values in estimate.maps.items():
                scores = score_map(values, failure, mask)
                row |= {case_key(name, protocol, kind): scores[kind] for kind in ("rmsd", "corr")}
        against = {f"{estimator}_{AGAINST_DECISION}": against_decision(prediction.opinions[estimator], decided)}
        for name, values in (estimate.maps | against).items():
            row |= {opinion_key(name, kind): value for kind, value in score_failures(values, *judged).items()}
    return row
