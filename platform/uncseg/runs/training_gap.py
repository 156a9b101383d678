"""How much better a fold is on cases that it was trained on than on new ones: the same plain passes over both.

The patches of a training say little of it: they are augmented, and were predicted by networks of many epochs. Here the
final network predicts whole cases of both kinds, on the preprocessed grid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from uncseg.cluster.tasks import map_cases_on_workers
from uncseg.dataset.finite import naming
from uncseg.dataset.splits import read_splits
from uncseg.errors import Problem
from uncseg.evaluation.overlap import dice
from uncseg.evaluation.summary import bootstrap_mean
from uncseg.evaluation.uncertainty import MIN_MASK_VOXELS, protocol_mask
from uncseg.method.inference.decisions import Decisions
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import predict_grid
from uncseg.page_table import with_interval
from uncseg.runs.failure_data import reference_of
from uncseg.runs.fold_prediction import loaded_network, preprocessed_case
from uncseg.runs.fold_request import FoldRequest, RunRequest
from uncseg.table_files import table_of

ERROR = "error"
"""Mean |p − reference| of the main region in the union mask, in [0, 1]."""


def measure_gap(
    request: RunRequest, folds: Sequence[int], patients: dict[str, str], progress: Callable[[int, int], None]
) -> tuple[pd.DataFrame, list[Problem]]:
    """Predict each fold's own cases, and as many of its training cases as ``evaluation.training_gap_cases`` says.

    Args:
        patients: of each case.
        progress: called with (done, total).

    Returns:
        One row per fold and case: fold, case, patient, seen (whether the fold was trained on it), ``dice_REGION`` of
        each region, and :data:`ERROR` (NaN where the mask has fewer than 50 voxels). And a problem for each case that
        could not be predicted.
    """
    splits, calls = read_splits(request.prepared.splits), []
    for fold in folds:
        seen, new = sorted(splits[fold]["train"]), sorted(splits[fold]["val"])
        drawn = np.random.default_rng(fold).permutation(len(seen))[: request.experiment.evaluation.training_gap_cases]
        for cases, is_seen in (([seen[n] for n in sorted(drawn)], True), (new, False)):
            calls += [
                (f"fold {fold}, {case}", score_on_grid, (request.fold(fold), case, patients[case], is_seen))
                for case in cases
            ]
    rows, problems = map_cases_on_workers(calls, request.slots, progress)
    table = table_of(rows.values())
    return table.sort_values(["fold", "seen", "case"], ignore_index=True) if len(table) else table, problems


def score_on_grid(request: FoldRequest, case_id: str, patient: str, seen: bool) -> dict[str, Any]:
    """Predict a case with a fold's final network and return its row; see :func:`measure_gap`."""
    torch.set_num_threads(request.cpus)
    with naming(case_id):
        data, _ = preprocessed_case(request, case_id)
        grid = predict_grid(loaded_network(request), data)
    decisions = Decisions.of_grid(grid, ModelFolder(request.run.model, request.experiment.plan.configuration))
    task, reference = request.experiment.dataset.task, reference_of(request, case_id)
    row: dict[str, Any] = {"fold": request.fold, "case": case_id, "patient": patient, "seen": seen}
    for key, expected, chosen in zip(task.region_keys.values(), reference, decisions.chosen, strict=True):
        row[f"dice_{key}"] = dice(expected, chosen)
    main = list(task.regions).index(task.main_region)
    p = 1 / (1 + np.exp(-decisions.logits[main].astype(np.float64)))
    mask = protocol_mask(reference[main], decisions.chosen[main], "union")
    enough = np.count_nonzero(mask) >= MIN_MASK_VOXELS
    return row | {ERROR: float(np.abs(p - reference[main])[mask].mean()) if enough else float("nan")}


def gap_lines(rows: pd.DataFrame) -> list[str]:
    """Return a sentence per figure of :func:`measure_gap`: its mean over training cases and over new ones."""
    lines = []
    for figure in rows.columns.drop(["fold", "case", "patient", "seen"], errors="ignore"):
        parts = []
        for seen, words in ((True, "training cases"), (False, "new cases")):
            part = rows[rows["seen"] == seen]
            low, high = bootstrap_mean(part[figure], part["patient"])
            parts.append(f"{with_interval(part[figure].mean(), low, high, 3)} on {len(part)} {words}")
        words = "mean |p − reference|" if figure == ERROR else figure.replace("dice_", "Dice ")
        lines.append(f"final networks, plain passes, {words}: {parts[0]}, {parts[1]}")
    return lines
