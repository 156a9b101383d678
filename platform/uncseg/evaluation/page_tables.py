"""Table 1 and Table 2 for people, as terminals, reports and model cards show them."""

import math

import pandas as pd

from uncseg.estimators.registry import HEAD
from uncseg.evaluation.figures import KINDS, dice_columns, shown_by_kind
from uncseg.evaluation.tables import PAPER, PAPER_DICE, is_the_papers, papers_dice
from uncseg.page_table import PageTable, Row, mean_sd
from uncseg.tasks.task import Task

QUOTED = "The paper's figures (BraTS 2023, 1248 cases, five folds) are quoted as anchors and not recomputed here"


def dice_table(table: pd.DataFrame, task: Task) -> PageTable:
    """Return Table 1 of :func:`uncseg.evaluation.tables.table1`; for the paper's task its figures are the last rows."""
    columns, rows = dice_columns(task), []
    for model, part in table[table["fold"] != PAPER].groupby("model", sort=False):
        by_fold = {row["fold"]: row for row in part.to_dict("records")}
        mean, sd = by_fold.pop("mean"), by_fold.pop("sd")
        for fold, row in by_fold.items():
            rows.append(Row([str(model), str(fold), str(row["cases"]), *(f"{row[c]:.4f}" for c in columns)]))
        means = [mean_sd(mean[column], sd[column], 4) for column in columns]
        rows.append(Row([str(model), "mean ± sd", str(mean["cases"]), *means], "strong"))
    note = "Dice of whole regions: mean over a fold's cases, then over folds ± sample sd between folds."
    if is_the_papers(task):
        for model in PAPER_DICE:
            figures = [f"{dice:.4f}" for dice in papers_dice(model).values()]
            rows.append(Row([f"paper, {model}", "quoted", "1248", *figures], "quoted"))
        note += f" {QUOTED}."
    return PageTable("table1", "Table 1. Dice out of fold", ["", "fold", "cases", *columns.values()], rows, note)


def uncertainty_table(table: pd.DataFrame, last_epochs: int, task: Task) -> PageTable:
    """Return Table 2 of :func:`uncseg.evaluation.tables.table2`; for the paper's task its figures stand beside ours."""
    figures, quoted, rows = shown_by_kind("table2"), is_the_papers(task), []
    for protocol, part in table.groupby("protocol", sort=False):
        rows.append(Row([f"{protocol} mask"], "part"))
        for row in part.to_dict("records"):
            cells = []
            for kind in KINDS:
                cells += [mean_sd(row[figure.key], row[f"{figure.key}_std"], 3) for figure in figures[kind]]
                if quoted:
                    cells.append("" if math.isnan(row[f"paper_{kind}"]) else f"{row[f'paper_{kind}']:g}")
            name = f"{row['estimator']}{' *' if row['floor'] else ''}"
            kind = "floor" if row["floor"] else "strong" if row["estimator"] == HEAD else ""
            rows.append(Row([name, *cells], kind))
    header, terminal = ["estimator"], {"estimator": "estimator"}
    for kind, name in KINDS.items():
        header += [*(figure.label for figure in figures[kind]), *([f"{name}, paper"] if quoted else [])]
        terminal |= {figure.label: figure.short for figure in figures[kind]}
    note = (
        f"Maps are compared with errors of {task.main_region} inside a mask: its reference (the paper's protocol, "
        "which cannot see false positives), or the union of reference and prediction, dilated by 2 voxels. "
        "Mean ± sample sd between folds. "
        f"The error memory is that of validation patches, over the last {last_epochs} epochs or in the final "
        "one; the failure is that of whole cases, out of fold. * floor: needs no training. constant: the best constant "
        "for each sample; its correlation is undefined and shown as 0."
    )
    if quoted:
        note += f" {QUOTED}; the paper's RMSD is probably on a compressed scale and not comparable."
    return PageTable("table2", "Table 2. Uncertainty against error", header, rows, note, terminal=terminal)
