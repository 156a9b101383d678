"""Table 1 (Dice with and without the head) and Table 2 (uncertainty against error, with the floors beside it).

``per_case`` has a row a case: case, patient, fold, dice_wt, dice_tc, dice_et, dice_mean, and for each estimator and
protocol ``ESTIMATOR/PROTOCOL/rmsd_failure`` and ``…/corr_failure``. ``epochs`` has a row a fold and epoch: fold, epoch
and ``uncertainty/PROTOCOL/rmsd_ema/ESTIMATOR`` and ``…/corr_ema/…``. NaN means left out, everywhere. Spreads are sample
standard deviations over folds (ddof 1).
"""

import math

import pandas as pd

from uncseg.config.sections import PROTOCOLS
from uncseg.estimators.registry import ALL_MAPS, FLOORS, HEAD
from uncseg.evaluation.figures import DICE_COLUMNS, KINDS, best_floor, shown_in
from uncseg.metric_keys import case_key, epoch_key
from uncseg.page_table import mean_sd

WITH, WITHOUT = "with head", "without head"
PAPER = "paper (BraTS 2023, anchor)"
# five folds: anchors, not targets; the RMSD is probably on a compressed scale
PAPER_DICE = {WITH: (0.9163, 0.9162, 0.8734), WITHOUT: (0.9179, 0.9169, 0.8710)}
PAPER_CORR = {HEAD: 0.96556, "variance_stable": 0.89382, "var1shot": 0.20738}
PAPER_RMSD = {HEAD: 0.0036, "variance_stable": 0.00542, "var1shot": 0.03192}


def table1(per_case: pd.DataFrame, baseline: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean Dice per fold, then over folds.

    Args:
        per_case: out-of-fold scores.
        baseline: those of the run without the head, where it exists.

    Returns:
        Columns model, fold ("0", …, "mean", "sd", and PAPER's figures), cases, dice_wt, dice_tc, dice_et, dice_mean.
        The model is named by what the scores hold, not by the argument: a baseline that turns out to be of the same
        kind is "with head, baseline" or "without head, baseline".
    """
    kind = _kind(per_case)
    parts = [_dice_rows(per_case, kind, kind)]
    if baseline is not None:
        other = _kind(baseline)
        parts.append(_dice_rows(baseline, other, other if other != kind else f"{other}, baseline"))
    return pd.concat(parts, ignore_index=True)


def _kind(per_case: pd.DataFrame) -> str:
    return WITH if any(column.startswith(f"{HEAD}/") for column in per_case.columns) else WITHOUT


def _dice_rows(per_case: pd.DataFrame, kind: str, model: str) -> pd.DataFrame:
    columns = list(DICE_COLUMNS)
    folds = per_case.groupby("fold")[columns].mean()
    counts = per_case.groupby("fold").size()
    rows = folds.reset_index().astype({"fold": str})
    rows["cases"] = counts.to_numpy()
    mean = {"fold": "mean", "cases": int(counts.sum()), **folds.mean().to_dict()}
    deviation = {"fold": "sd", "cases": int(counts.sum()), **folds.std(ddof=1).to_dict()}
    wt, tc, et = PAPER_DICE[kind]
    paper = {"fold": PAPER, "cases": 1248, "dice_wt": wt, "dice_tc": tc, "dice_et": et}
    paper["dice_mean"] = (wt + tc + et) / 3
    rows = pd.concat([rows, pd.DataFrame([mean, deviation, paper])], ignore_index=True)
    rows.insert(0, "model", model)
    return rows[["model", "fold", "cases", *columns]]


def table2(per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int) -> pd.DataFrame:
    """Uncertainty against error: a row for each protocol and estimator there is.

    Args:
        per_case: out-of-fold scores.
        epochs: the trainer's metrics.
        last_epochs: epochs averaged for ``*_ema_last``.

    Returns:
        Columns protocol, estimator, floor (bool), each figure of Table 2 and its ``_std`` over folds, paper_corr,
        paper_rmsd. ``*_ema`` is against the error memory on validation patches, ``*_failure`` against the single
        failure of out-of-fold predictions: a mean over a fold's cases, then over folds. NaN where nothing was valid.
        The paper's RMSD is probably on a compressed scale: not comparable with ours.
    """
    rows = []
    for protocol in PROTOCOLS:
        for estimator in ALL_MAPS:
            failure, memory = case_key(estimator, protocol, "rmsd"), epoch_key(protocol, "rmsd", estimator)
            if failure in per_case.columns or memory in epochs.columns:
                rows.append(_estimator_row(per_case, epochs, last_epochs, protocol, estimator))
    figures = [column for name in shown_in("table2") for column in (name, f"{name}_std")]
    return pd.DataFrame(rows, columns=["protocol", "estimator", "floor", *figures, "paper_corr", "paper_rmsd"])


def _estimator_row(
    per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int, protocol: str, estimator: str
) -> dict[str, object]:
    row: dict[str, object] = {"protocol": protocol, "estimator": estimator, "floor": estimator in FLOORS}
    epochs = epochs.sort_values("epoch")
    for kind in KINDS:
        ema = _by_fold(epochs, epoch_key(protocol, kind, estimator))
        over_folds = {
            f"{kind}_ema_last": [values.tail(last_epochs).mean() for values in ema],
            f"{kind}_ema_final": [values.iloc[-1] for values in ema],
            f"{kind}_failure": [v.mean() for v in _by_fold(per_case, case_key(estimator, protocol, kind))],
        }
        for name, values in over_folds.items():
            folds = pd.Series(values, dtype=float)
            row[name], row[f"{name}_std"] = float(folds.mean()), float(folds.std(ddof=1))
    anchored = protocol == "reference"
    row["paper_corr"] = PAPER_CORR.get(estimator, math.nan) if anchored else math.nan
    row["paper_rmsd"] = PAPER_RMSD.get(estimator, math.nan) if anchored else math.nan
    return row


def _by_fold(frame: pd.DataFrame, column: str) -> list[pd.Series]:
    return [values for _, values in frame.groupby("fold")[column]] if column in frame.columns else []


def beats_floor(table: pd.DataFrame) -> list[str]:
    """One sentence a protocol and error: whether the head's correlation exceeds the best floor's, and by how much.

    A lead within the larger of both spreads over folds is called unproven, as is one on a single fold.
    """
    lines = []
    for protocol, rows in table.groupby("protocol", sort=False):
        by_name = rows.set_index("estimator")
        if HEAD not in by_name.index or not by_name["floor"].any():
            continue
        for key, figure in shown_in("verdict").items():
            lines.append(f"{protocol} mask, {figure.label}: {_verdict(by_name, key)}")
    return lines


def _verdict(by_name: pd.DataFrame, figure: str) -> str:
    means, spreads = by_name[figure].to_dict(), by_name[f"{figure}_std"].to_dict()
    best = best_floor(means, figure)
    if math.isnan(means[HEAD]) or best is None:
        side = "the head" if math.isnan(means[HEAD]) else "the floors"
        return f"no valid correlation of {side}, so nothing is shown."
    lead = means[HEAD] - means[best]
    head, floor = (mean_sd(means[name], spreads[name], 3) for name in (HEAD, best))
    if lead <= 0:
        return f"the head's correlation {head} does not exceed the best floor's ({best}, {floor})."
    found = f"the head's correlation {head} exceeds the best floor's ({best}, {floor}) by {lead:.4f}"
    if math.isnan(spreads[HEAD]) or math.isnan(spreads[best]):
        return f"{found}; on a single fold, unproven."
    widest = max(spreads[HEAD], spreads[best])
    return f"{found}." if lead > widest else f"{found}, within the spread over folds ({widest:.4f}): unproven."
