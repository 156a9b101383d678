"""Tables as a report shows them, and the same for LaTeX."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from uncseg.evaluation.tables import DICE_COLUMNS, PAPER, PAPER_DICE, mean_sd
from uncseg.files import write_text
from uncseg.names import HEAD
from uncseg.report.score_tables import SHOWN, interval

QUOTED = "The paper's figures are quoted as anchors: BraTS 2023, 1248 cases, five folds; not recomputed here"
_LATEX = {"±": r"$\pm$", "−": "$-$", "…": r"\ldots{}", "×": r"$\times$", "·": r"$\cdot$"}


@dataclass(frozen=True)
class Row:
    """Cells of a table, and what kind of row it is: "", strong, floor, part, quoted."""

    cells: Sequence[str]
    kind: str = ""
    link: str = ""
    """What the first cell leads to, on the page."""


@dataclass(frozen=True)
class PageTable:
    """A table as the page shows it."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Row]
    note: str


def write_latex(table: PageTable, folder: Path) -> None:
    """Write NAME.tex: a table environment with rules of booktabs, its caption the title and the note."""
    frame = pd.DataFrame([list(row.cells) for row in table.rows], columns=list(table.header))
    columns = "l" + "r" * (len(table.header) - 1)
    caption = f"{table.title}. {table.note}".replace("%", r"\%").replace("_", r"\_").replace("*", "$*$")
    text = frame.to_latex(index=False, escape=True, caption=caption, label=f"tab:{table.name}", column_format=columns)
    for sign, command in _LATEX.items():
        text = text.replace(sign, command)
    write_text(folder / f"{table.name}.tex", text)


def first_table(table: pd.DataFrame) -> PageTable:
    """Table 1 of :func:`uncseg.evaluation.tables.table1`, below it the paper's own, with and without the head."""
    rows = []
    for model, part in table[table["fold"] != PAPER].groupby("model", sort=False):
        by_fold = {row["fold"]: row for row in part.to_dict("records")}
        mean, sd = by_fold.pop("mean"), by_fold.pop("sd")
        for fold, row in by_fold.items():
            rows.append(Row([str(model), str(fold), str(row["cases"]), *(f"{row[c]:.4f}" for c in DICE_COLUMNS)]))
        rows.append(Row([str(model), "mean ± sd", str(mean["cases"]), *dice_cells(mean, sd)], "strong"))
    for model, dices in PAPER_DICE.items():
        figures = [f"{dice:.4f}" for dice in (*dices, sum(dices) / len(dices))]
        rows.append(Row([f"paper, {model}", "quoted", "1248", *figures], "quoted"))
    note = f"Dice of whole regions, mean over a fold's cases, then over folds; sd: sample, over folds. {QUOTED}."
    return PageTable("table1", "Table 1. Dice out of fold", ["", "fold", "cases", *DICE_COLUMNS.values()], rows, note)


def dice_cells(mean: Mapping[Any, Any], sd: Mapping[Any, Any]) -> list[str]:
    """Mean ± sd of each of Table 1's columns."""
    return [mean_sd(mean[column], sd[column], 4, " ± ") for column in DICE_COLUMNS]


def second_table(table: pd.DataFrame, last_epochs: int) -> PageTable:
    """Table 2 of :func:`uncseg.evaluation.tables.table2`, the paper's own beside it."""
    rows = []
    for protocol, part in table.groupby("protocol", sort=False):
        rows.append(Row([f"{protocol} mask", *[""] * 8], "part"))
        for row in part.to_dict("records"):
            cells = []
            for kind in ("corr", "rmsd"):
                columns = [f"{kind}_{what}" for what in ("ema_last", "ema_final", "failure")]
                cells += [mean_sd(row[c], row[f"{c}_std"], 3, " ± ").replace("-", "−") for c in columns]
                cells.append("" if math.isnan(row[f"paper_{kind}"]) else f"{row[f'paper_{kind}']:g}")
            name = f"{row['estimator']}{' *' if row['floor'] else ''}"
            kind = "floor" if row["floor"] else "strong" if row["estimator"] == HEAD else ""
            rows.append(Row([name, *cells], kind))
    whats = [f"error memory, last {last_epochs} epochs", "error memory, final epoch", "failure", "paper"]
    header = ["estimator", *(f"{kind}: {what}" for kind in ("corr", "RMSD") for what in whats)]
    note = (
        "By protocol: reference mask (the paper's) and union mask (reference or prediction, dilated by 2 voxels). Mean "
        "± sample sd over folds. Error memory: on validation patches. Failure: the single error out of fold, whole "
        "cases. * floor: needs no training; constant: each sample's best, its correlation undefined and shown as 0. "
        f"{QUOTED}; its RMSD is probably on a compressed scale and not comparable."
    )
    return PageTable("table2", "Table 2. Uncertainty against error", header, rows, note)


def scores_table(summary: pd.DataFrame) -> PageTable:
    """The main scores of :func:`uncseg.evaluation.summary.summarize`, a column a region."""
    regions = list(dict.fromkeys(summary["region"]))
    by_name = summary.set_index(["figure", "region"])
    rows = [
        Row(
            [name, *(interval(by_name.loc[(figure, region)], 3).replace("-", "−") for region in regions)],
            "floor" if "*" in name else "",
        )
        for figure, name in SHOWN.items()
        if (figure, regions[0]) in by_name.index
    ]
    note = "Mean over cases [95 % interval, patients resampled]. * floor: needs no model."
    return PageTable("scores", "Scores out of fold", ["", *regions], rows, note)


def work_list(scores: pd.DataFrame, per_case: pd.DataFrame, number: int) -> pd.DataFrame:
    """The worst cases by WT Dice and the most uncertain, half each, the worst first.

    Args:
        scores: a row a case and region.
        per_case: a row a case.
        number: of cases, fewer where the same ones are both.

    Returns:
        Columns case, fold, dice_wt, dice_tc, dice_et, hd95_wt_mm, mean_uncertainty, expected_dice_wt (NaN where
        unknown), rank_worst, rank_uncertain (from 1; NaN without a map).
    """
    wt = scores[scores["region"] == "WT"].set_index("case")
    known = pd.DataFrame({"fold": wt["fold"], "hd95_wt_mm": wt["hd95_mm"]})
    of_case = per_case.set_index("case")
    for column in ("dice_wt", "dice_tc", "dice_et", "expected_dice_wt"):
        known[column] = of_case.get(column, math.nan)
    known["mean_uncertainty"] = wt.get("mean_uncertainty", math.nan)
    known["rank_worst"] = known["dice_wt"].rank(method="first")
    known["rank_uncertain"] = known["mean_uncertainty"].rank(method="first", ascending=False)
    worst = known.sort_values("rank_worst").index[: (number + 1) // 2]
    uncertain = known.dropna(subset=["rank_uncertain"]).sort_values("rank_uncertain").index[: number // 2]
    order = ["fold", "dice_wt", "dice_tc", "dice_et", "hd95_wt_mm", "mean_uncertainty", "expected_dice_wt"]
    chosen = known.loc[list(dict.fromkeys([*worst, *uncertain])), [*order, "rank_worst", "rank_uncertain"]]
    return chosen.reset_index(names="case")


def work_table(cases: pd.DataFrame, of: int, number: int, links: Mapping[str, str]) -> PageTable:
    """The work list of :func:`work_list`.

    Args:
        cases: the list.
        of: cases that there are.
        number: of cases that were asked for; a rank is named where it is among as many.
        links: from a case to its slices on the page.
    """
    rows = []
    for row in cases.to_dict("records"):
        ranks = {"worst": row["rank_worst"], "most uncertain": row["rank_uncertain"]}
        why = ", ".join(f"{what} {rank:.0f}" for what, rank in ranks.items() if rank <= (number + 1) // 2)
        figures = [_number(row[name], 3) for name in ("dice_wt", "dice_tc", "dice_et")]
        figures += [
            _number(row["hd95_wt_mm"], 1),
            *(_number(row[n], 3) for n in ("mean_uncertainty", "expected_dice_wt")),
        ]
        rows.append(Row([row["case"], str(row["fold"]), *figures, why], link=links.get(row["case"], "")))
    header = ["case", "fold", "Dice WT", "Dice TC", "Dice ET", "HD95 WT, mm", "mean uncertainty", "expected Dice WT"]
    note = (
        f"Ranks among {of} cases, by WT Dice and by mean uncertainty. Expected Dice: what the uncertainty map says, "
        "taken at its word."
    )
    return PageTable("work_list", "Cases to look at", [*header, "why"], rows, note)


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
