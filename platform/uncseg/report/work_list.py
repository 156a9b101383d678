"""The cases of a run to look at: the worst and the most uncertain."""

import math
from collections.abc import Mapping

import pandas as pd

from uncseg.page_table import PageTable, Row, fixed

_COLUMNS = {
    "dice_wt": ("Dice WT", 3),
    "dice_tc": ("Dice TC", 3),
    "dice_et": ("Dice ET", 3),
    "hd95_wt_mm": ("HD95 WT, mm", 1),
    "mean_uncertainty": ("mean uncertainty", 3),
    "expected_dice_wt": ("expected Dice WT", 3),
}
"""Figures of a case: their heads in the table, and the digits shown."""


def work_list(scores: pd.DataFrame, per_case: pd.DataFrame, count: int) -> pd.DataFrame:
    """Choose the worst cases by WT Dice and the most uncertain ones, half each, the worst first.

    The list has ``count`` cases, or fewer where the worst are the most uncertain, too. ``scores`` has one row per case
    and region, ``per_case`` one row per case.

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
    worst = known.sort_values("rank_worst").index[: (count + 1) // 2]
    uncertain = known.dropna(subset=["rank_uncertain"]).sort_values("rank_uncertain").index[: count // 2]
    chosen = known.loc[list(dict.fromkeys([*worst, *uncertain])), ["fold", *_COLUMNS, "rank_worst", "rank_uncertain"]]
    return chosen.reset_index(names="case")


def work_table(cases: pd.DataFrame, total: int, count: int, links: Mapping[str, str]) -> PageTable:
    """Return the table of :func:`work_list`; ``total`` are the cases of the run.

    A rank is named where it belongs to the worse half of ``count``, the number of cases that were asked for. ``links``
    holds the anchors of the cases' slices on the page.
    """
    rows = []
    for row in cases.to_dict("records"):
        ranks = {"worst": row["rank_worst"], "most uncertain": row["rank_uncertain"]}
        why = ", ".join(f"{what} {rank:.0f}" for what, rank in ranks.items() if rank <= (count + 1) // 2)
        figures = [fixed(row[name], digits, unknown="") for name, (_, digits) in _COLUMNS.items()]
        rows.append(Row([row["case"], str(row["fold"]), *figures, why], link=links.get(row["case"], "")))
    header = ["case", "fold", *(head for head, _ in _COLUMNS.values()), "why"]
    note = (
        f"Ranks among {total} cases, by WT Dice and by mean uncertainty. Expected Dice: the Dice if the values of the "
        "uncertainty map are the probabilities of an error."
    )
    return PageTable("work_list", "Cases to look at", header, rows, note, words=["why"])
