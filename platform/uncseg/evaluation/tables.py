"""Table 1 (Dice with and without the head) and Table 2 (uncertainty against error, with the floors beside it).

``per_case`` has a row a case: case, patient, fold, dice_wt, dice_tc, dice_et, dice_mean, and for each estimator and
protocol ``ESTIMATOR/PROTOCOL/rmsd_failure`` and ``…/corr_failure``. ``epochs`` has a row a fold and epoch: fold, epoch
and ``uncertainty/ESTIMATOR/PROTOCOL/rmsd_ema`` and ``…/corr_ema``. NaN means left out, everywhere. Spreads are sample
standard deviations over folds (ddof 1).
"""

import math
from pathlib import Path

import pandas as pd
from rich.table import Table

from uncseg.estimators import BASELINES, FLOORS, HEAD, ORACLE, PROTOCOLS
from uncseg.files import whole_file

DICE_COLUMNS = {"dice_wt": "Dice WT", "dice_tc": "Dice TC", "dice_et": "Dice ET", "dice_mean": "mean"}
WITH, WITHOUT = "with head", "without head"
# BraTS 2023, five folds: anchors, not targets; the RMSD is probably on a compressed scale
PAPER_DICE = {WITH: (0.9163, 0.9162, 0.8734), WITHOUT: (0.9179, 0.9169, 0.8710)}
PAPER_CORR = {HEAD: 0.96556, "variance_stable": 0.89382, "var1shot": 0.20738}
PAPER_RMSD = {HEAD: 0.0036, "variance_stable": 0.00542, "var1shot": 0.03192}
FIGURES = ("rmsd_ema_last", "corr_ema_last", "rmsd_ema_final", "corr_ema_final", "rmsd_failure", "corr_failure")


def table1(per_case: pd.DataFrame, baseline: pd.DataFrame | None = None) -> pd.DataFrame:
    """Mean Dice per fold, then over folds.

    Args:
        per_case: out-of-fold scores.
        baseline: those of the run without the head, where it exists.

    Returns:
        Columns model, fold ("0", …, "mean", "sd", "paper"), cases, dice_wt, dice_tc, dice_et, dice_mean.
    """
    has_head = any(column.startswith(f"{HEAD}/") for column in per_case.columns)
    parts = [_dice_rows(per_case, WITH if has_head else WITHOUT)]
    if baseline is not None:
        parts.append(_dice_rows(baseline, WITHOUT))
    return pd.concat(parts, ignore_index=True)


def _dice_rows(per_case: pd.DataFrame, model: str) -> pd.DataFrame:
    columns = list(DICE_COLUMNS)
    folds = per_case.groupby("fold")[columns].mean()
    counts = per_case.groupby("fold").size()
    rows = folds.reset_index().astype({"fold": str})
    rows["cases"] = counts.to_numpy()
    mean = {"fold": "mean", "cases": int(counts.sum()), **folds.mean().to_dict()}
    spread = {"fold": "sd", "cases": int(counts.sum()), **folds.std(ddof=1).to_dict()}
    wt, tc, et = PAPER_DICE[model]
    paper = {"fold": "paper", "cases": 1248, "dice_wt": wt, "dice_tc": tc, "dice_et": et}
    paper["dice_mean"] = (wt + tc + et) / 3
    rows = pd.concat([rows, pd.DataFrame([mean, spread, paper])], ignore_index=True)
    rows.insert(0, "model", model)
    return rows[["model", "fold", "cases", *columns]]


def table2(per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int) -> pd.DataFrame:
    """Uncertainty against error: a row for each protocol and estimator there is.

    Args:
        per_case: out-of-fold scores.
        epochs: the trainer's metrics.
        last_epochs: epochs averaged for ``*_ema_last``.

    Returns:
        Columns protocol, estimator, floor (bool), each of FIGURES and its ``_std`` over folds, paper_corr,
        paper_rmsd. ``*_ema`` is against the error memory on validation patches, ``*_failure`` against the single
        failure of out-of-fold predictions.
    """
    rows = []
    for protocol in PROTOCOLS:
        for estimator in (HEAD, *BASELINES, *FLOORS, ORACLE):
            if f"{estimator}/{protocol}/rmsd_failure" in per_case.columns:
                rows.append(_estimator_row(per_case, epochs, last_epochs, protocol, estimator))
    return pd.DataFrame(rows)


def _estimator_row(
    per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int, protocol: str, estimator: str
) -> dict[str, object]:
    row: dict[str, object] = {"protocol": protocol, "estimator": estimator, "floor": estimator in FLOORS}
    for kind in ("rmsd", "corr"):
        ema = f"uncertainty/{estimator}/{protocol}/{kind}_ema"
        folds = epochs.sort_values("epoch").groupby("fold")[ema] if ema in epochs.columns else None
        last = final = pd.Series(dtype=float)
        if folds is not None:
            last = folds.apply(lambda values: values.tail(last_epochs).mean())
            final = folds.apply(lambda values: values.iloc[-1])
        failure = per_case.groupby("fold")[f"{estimator}/{protocol}/{kind}_failure"].mean()
        for name, values in ((f"{kind}_ema_last", last), (f"{kind}_ema_final", final), (f"{kind}_failure", failure)):
            row[name], row[f"{name}_std"] = float(values.mean()), float(values.std(ddof=1))
    anchored = protocol == "reference"
    row["paper_corr"] = PAPER_CORR.get(estimator, math.nan) if anchored else math.nan
    row["paper_rmsd"] = PAPER_RMSD.get(estimator, math.nan) if anchored else math.nan
    return row


def beats_floor(table: pd.DataFrame) -> list[str]:
    """One sentence a protocol and error: whether the head's correlation exceeds the best floor's."""
    lines = []
    for protocol in dict.fromkeys(table["protocol"]):
        rows = table[table["protocol"] == protocol]
        by_name = rows.set_index("estimator")
        if HEAD not in by_name.index:
            continue
        floors = by_name[by_name["floor"]]
        for figure, error in (("corr_ema_last", "the error memory"), ("corr_failure", "the out-of-fold failure")):
            values = floors[figure].dropna()
            if values.empty:
                continue
            head, best, floor = float(by_name[figure].to_dict()[HEAD]), str(values.idxmax()), float(values.max())
            verdict = "exceeds" if head > floor else "does not exceed"
            lines.append(
                f"{protocol} protocol, against {error}: the head's correlation {head:.3f} {verdict} "
                f"the best floor's ({best}, {floor:.3f})."
            )
    return lines


def write_table(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.parquet (the truth) and NAME.csv (for reading), whole or not at all."""
    with whole_file(folder / f"{name}.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    with whole_file(folder / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False)


def show_table1(table: pd.DataFrame) -> Table:
    """Table 1 for a terminal."""
    shown = Table(title="Table 1. Dice out of fold, with and without the uncertainty head")
    for column in ("", "fold", "cases", *DICE_COLUMNS.values()):
        shown.add_column(column, justify="left" if column in ("", "fold") else "right")
    for model, rows in table.groupby("model", sort=False):
        by_fold = {row["fold"]: row for row in rows.to_dict("records")}
        mean, sd, paper = (by_fold.pop(name) for name in ("mean", "sd", "paper"))
        for fold, row in by_fold.items():
            shown.add_row(str(model), str(fold), str(row["cases"]), *(f"{row[c]:.4f}" for c in DICE_COLUMNS))
        spreads = (_spread(mean[c], sd[c], 4) for c in DICE_COLUMNS)
        shown.add_row(str(model), "mean ± sd", str(mean["cases"]), *spreads, style="bold")
        anchors = (f"{paper[c]:.4f}" for c in DICE_COLUMNS)
        shown.add_row(str(model), "paper (BraTS 2023)", str(paper["cases"]), *anchors, style="dim", end_section=True)
    return shown


def show_table2(table: pd.DataFrame) -> Table:
    """Table 2 for a terminal: correlations and RMSDs, mean ± sd over folds; floors are marked."""
    shown = Table(
        title="Table 2. Uncertainty against error",
        caption="ema: error memory, validation patches, mean of the last epochs and final epoch; failure: out of fold, "
        "native space. * floor: needs no training. constant: each sample's best, its correlation 0 by definition.",
    )
    shown.add_column("estimator")
    for kind in ("corr", "RMSD"):
        for what in ("ema", "ema, final", "failure"):
            shown.add_column(f"{kind}\n{what}", justify="right")
    for protocol, rows in table.groupby("protocol", sort=False):
        shown.add_row(f"{protocol} mask", style="bold")
        for _, row in rows.iterrows():
            name = f"  {row['estimator']}{' *' if row['floor'] else ''}"
            names = [f"{kind}_{what}" for kind in ("corr", "rmsd") for what in ("ema_last", "ema_final", "failure")]
            shown.add_row(name, *(_spread(row[n], row[f"{n}_std"], 3) for n in names))
        shown.add_section()
    return shown


def _spread(mean: float, sd: float, digits: int) -> str:
    if math.isnan(mean):
        return "none valid"
    return f"{mean:.{digits}f}" if math.isnan(sd) else f"{mean:.{digits}f}±{sd:.{digits}f}"
