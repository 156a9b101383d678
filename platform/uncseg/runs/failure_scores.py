"""How well a fold's learnt map, with any settings, tells the failures of its own cases, beside calibrated p."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from uncseg.dataset.splits import read_splits
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import CALIBRATED, CROSS_FITTED
from uncseg.evaluation.figures import HIGHER, shown_in
from uncseg.evaluation.uncertainty import protocol_mask, score_failures
from uncseg.method.failures.failure_model import FailureModel
from uncseg.metric_keys import learnt_key
from uncseg.runs.cross_fitting import learn_from
from uncseg.runs.failure_data import is_kept, open_case, reference_of
from uncseg.runs.fold_request import RunRequest
from uncseg.runs.run_data import read_data

SIGNS = {figure.kind: 1 if figure.better == HIGHER else -1 for figure in shown_in("table3").values()}
"""Figures of failures, and whether more is better (1) or less (−1)."""


def score_fold(
    request: RunRequest, fold: int, sources: Mapping[str, str], checkpoint: Path, source: str
) -> list[dict[str, Any]]:
    """Let a fold learn from the other folds' cases, and score what that says of its own ones.

    Args:
        request: of the run, with the settings of what is learnt.
        fold: no reference of its cases is learnt from.
        sources: the cases, each with the digest of what is kept of it.
        checkpoint, source: as :func:`~uncseg.runs.cross_fitting.learn_from` takes them.

    Returns:
        Two rows per case, with fold, case, patient, map and the figures of :data:`SIGNS`: against the failures of the
        main region on the preprocessed grid, in the union mask.

    Raises:
        ProblemsFound: what is kept of a case has changed meanwhile.
    """
    found, expected = "changed by another command", "what the run's folds made of it"
    changed = [
        Problem(c, found, expected, "give the sweep again") for c, s in sources.items() if not is_kept(request, c, s)
    ]
    if changed:
        raise ProblemsFound("There is nothing to learn from.", changed, exit_code=1)
    splits, data = read_splits(request.prepared.splits), read_data(request.run)
    assert data is not None
    own = {*splits[fold]["val"]}
    model, _ = learn_from(request, fold, sorted({*sources} - own), checkpoint, source)
    rows = []
    for case in sorted(own & {*sources}):
        keys = {"fold": fold, "case": case, "patient": data.cases[case].patient}
        rows += [keys | {"map": name} | scores for name, scores in _scores(request, model, case).items()]
    return rows


def _scores(request: RunRequest, model: FailureModel, case_id: str) -> dict[str, dict[str, float]]:
    task = request.experiment.dataset.task
    main, whole = list(task.regions).index(task.main_region), (slice(None),) * 4
    case, reference = open_case(request, case_id), reference_of(request, case_id)[main]
    logits, decisions = case.logits[whole], case.decisions[whole]
    failure, mask = decisions[main] != reference, protocol_mask(reference, decisions[main], "union")
    learnt = model.failures(np.asarray(case.images[whole]), logits, decisions, request.experiment.evaluation.tile_step)
    assert learnt is not None
    maps = {CROSS_FITTED: learnt, CALIBRATED: model.calibrated(logits, decisions)}
    scores = {name: score_failures(values[main], failure, mask) for name, values in maps.items()}
    return {name: {kind: own[kind] for kind in SIGNS} for name, own in scores.items()}


def fold_figures(rows: pd.DataFrame) -> dict[str, float]:
    """Return the metrics of a fold: means over its cases, and over those for which both maps have a value the lead.

    The lead is by how much the learnt map is better than calibrated p on the same cases, positive where it is better.
    """
    by_map = {str(name): part.set_index("case")[list(SIGNS)].astype(float) for name, part in rows.groupby("map")}
    learnt, leads = by_map[CROSS_FITTED], (by_map[CROSS_FITTED] - by_map[CALIBRATED]) * pd.Series(SIGNS)
    figures = {learnt_key(kind): float(learnt[kind].mean()) for kind in SIGNS}
    return figures | {learnt_key(kind, lead=True): float(leads[kind].mean()) for kind in SIGNS}
