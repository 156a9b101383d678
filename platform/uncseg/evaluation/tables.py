"""Table 1 (Dice with and without the head) and Table 2 (uncertainty against error, with the floors beside it).

``per_case`` has one row per case: case, patient, fold, the columns of Table 1, and the keys of
:func:`~uncseg.metric_keys.case_key`. ``epochs`` has one row per fold and epoch: fold, epoch and the keys of
:func:`~uncseg.metric_keys.epoch_key`. NaN values are left out of every mean. Deviations are sample standard deviations
over folds (ddof 1).
"""

import math

import pandas as pd

from uncseg.config.training_sections import PROTOCOLS
from uncseg.estimators.registry import ALL_MAPS, FLOORS, HEAD
from uncseg.evaluation.figures import KINDS, best_floor, dice_columns, region_dices, shown_in
from uncseg.metric_keys import case_key, epoch_key
from uncseg.page_table import mean_sd
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.task import Task

WITH, WITHOUT = "with head", "without head"
PAPER = "paper (BraTS 2023, anchor)"
# The paper's figures, over five folds: anchors and not targets.
PAPER_DICE = {WITH: (0.9163, 0.9162, 0.8734), WITHOUT: (0.9179, 0.9169, 0.8710)}
"""Of the regions of the paper's task."""
PAPER_MAPS = {
    HEAD: {"corr": 0.96556, "rmsd": 0.0036},
    "variance_stable": {"corr": 0.89382, "rmsd": 0.00542},
    "var1shot": {"corr": 0.20738, "rmsd": 0.03192},
}
"""With the error memory, reference mask; the RMSD is probably on a compressed scale and not comparable with ours."""


def is_the_papers(task: Task) -> bool:
    """Return whether a task is the paper's, so that its figures may stand beside those of a run."""
    return task.name == paper_task().name and task.same_meaning(paper_task())


def table1(per_case: pd.DataFrame, task: Task, baseline: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the mean Dice per fold, and its mean and standard deviation over folds.

    The columns are model, fold ("0", …, "mean", "sd" and, for the paper's task, PAPER, the paper's figures), cases, and
    those of :func:`~uncseg.evaluation.figures.dice_columns`. A model is named by what its scores hold, whichever
    argument it is: a baseline of the same kind is "with head, baseline" or "without head, baseline".
    """
    kind = _kind(per_case)
    parts = [_dice_rows(per_case, kind, kind, task)]
    if baseline is not None:
        other = _kind(baseline)
        parts.append(_dice_rows(baseline, other, other if other != kind else f"{other}, baseline", task))
    return pd.concat(parts, ignore_index=True)


def _kind(per_case: pd.DataFrame) -> str:
    return WITH if any(column.startswith(f"{HEAD}/") for column in per_case.columns) else WITHOUT


def _dice_rows(per_case: pd.DataFrame, kind: str, model: str, task: Task) -> pd.DataFrame:
    columns = list(dice_columns(task))
    folds = per_case.groupby("fold")[columns].mean()
    counts = per_case.groupby("fold").size()
    rows = folds.reset_index().astype({"fold": str}).assign(cases=counts.to_numpy())
    below = [
        {"fold": "mean", "cases": int(counts.sum()), **folds.mean()},
        {"fold": "sd", "cases": int(counts.sum()), **folds.std(ddof=1)},
        *([{"fold": PAPER, "cases": 1248, **papers_dice(kind)}] if is_the_papers(task) else []),
    ]
    rows = pd.concat([rows, pd.DataFrame(below)], ignore_index=True)
    return rows.assign(model=model)[["model", "fold", "cases", *columns]]


def papers_dice(kind: str) -> dict[str, float]:
    """Return the paper's figures of Table 1 by column, WITH or WITHOUT the head."""
    regions = dict(zip(region_dices(paper_task()), PAPER_DICE[kind], strict=True))
    return regions | {"dice_mean": sum(regions.values()) / len(regions)}


def table2(per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int, task: Task) -> pd.DataFrame:
    """Return one row per protocol and estimator that the scores or the epochs hold.

    The columns are protocol, estimator, floor (bool), each figure of Table 2 and its ``_std`` over folds, paper_corr,
    paper_rmsd. ``*_ema`` compares with the error memory on validation patches, ``*_ema_last`` in the mean of the
    ``last_epochs``; ``*_failure`` compares with the failure of out-of-fold predictions and is a mean over a fold's
    cases, then over folds. NaN where no value is valid, and in the paper's columns for another task than the paper's.
    """
    rows = []
    papers = PAPER_MAPS if is_the_papers(task) else {}
    epochs = epochs.sort_values("epoch")
    for protocol in PROTOCOLS:
        for estimator in ALL_MAPS:
            failure, memory = case_key(estimator, protocol, "rmsd"), epoch_key(protocol, "rmsd", estimator)
            if failure in per_case.columns or memory in epochs.columns:
                row = _estimator_row(per_case, epochs, last_epochs, protocol, estimator)
                known = papers.get(estimator, {}) if protocol == "reference" else {}
                rows.append(row | {f"paper_{kind}": known.get(kind, math.nan) for kind in KINDS})
    figures = [column for name in shown_in("table2") for column in (name, f"{name}_std")]
    return pd.DataFrame(rows, columns=["protocol", "estimator", "floor", *figures, *(f"paper_{k}" for k in KINDS)])


def _estimator_row(
    per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int, protocol: str, estimator: str
) -> dict[str, object]:
    row: dict[str, object] = {"protocol": protocol, "estimator": estimator, "floor": estimator in FLOORS}
    for kind in KINDS:
        memory = _by_fold(epochs, epoch_key(protocol, kind, estimator))
        over_folds = {
            f"{kind}_ema_last": [values.tail(last_epochs).mean() for values in memory],
            f"{kind}_ema_final": [values.iloc[-1] for values in memory],
            f"{kind}_failure": [v.mean() for v in _by_fold(per_case, case_key(estimator, protocol, kind))],
        }
        for name, values in over_folds.items():
            folds = pd.Series(values, dtype=float)
            row[name], row[f"{name}_std"] = float(folds.mean()), float(folds.std(ddof=1))
    return row


def _by_fold(frame: pd.DataFrame, column: str) -> list[pd.Series]:
    return [values for _, values in frame.groupby("fold")[column]] if column in frame.columns else []


def beats_floor(table: pd.DataFrame) -> list[str]:
    """Return one sentence per protocol and error on whether the head's correlation exceeds the best floor's.

    A lead within the larger of both standard deviations between folds is unproven, as is a lead on a single fold.
    """
    lines = []
    for protocol, rows in table.groupby("protocol", sort=False):
        by_name = rows.set_index("estimator")
        if HEAD in by_name.index and by_name["floor"].any():
            for key, figure in shown_in("verdict").items():
                lines.append(f"{protocol} mask, {figure.label}: {_verdict(by_name, key)}")
    return lines


def _verdict(by_name: pd.DataFrame, figure: str) -> str:
    means, deviations = by_name[figure].to_dict(), by_name[f"{figure}_std"].to_dict()
    best = best_floor(means, figure)
    if math.isnan(means[HEAD]) or best is None:
        side = "the head" if math.isnan(means[HEAD]) else "the floors"
        return f"no valid correlation of {side}, so nothing is shown."
    lead = means[HEAD] - means[best]
    head, floor = (mean_sd(means[name], deviations[name], 3) for name in (HEAD, best))
    if lead <= 0:
        return f"the head's correlation {head} does not exceed the best floor's ({best}, {floor})."
    found = f"the head's correlation {head} exceeds the best floor's ({best}, {floor}) by {lead:.4f}"
    largest = max(deviations[HEAD], deviations[best])
    if math.isnan(deviations[HEAD] + deviations[best]):
        return f"{found}; on a single fold, unproven."
    if lead > largest:
        return f"{found}."
    return f"{found}, within the standard deviation between folds ({largest:.4f}): unproven."
