"""The cases of a run to look at: the worst and the most uncertain."""

import math
from collections.abc import Mapping

import pandas as pd

from uncseg.evaluation.expectation import expected_dice_column
from uncseg.evaluation.figures import region_dices
from uncseg.page_table import PageTable, Row, fixed
from uncseg.tasks.task import Task


def work_columns(task: Task) -> dict[str, tuple[str, int]]:
    """Return the figures of a case: their heads in the table, and the digits shown."""
    main = task.main_region
    return {
        **{column: (heading, 3) for column, heading in region_dices(task).items()},
        f"hd95_{task.main_key}_mm": (f"HD95 {main}, mm", 1),
        "mean_uncertainty": ("mean uncertainty", 3),
        expected_dice_column(task): (f"expected Dice {main}", 3),
    }


def work_list(scores: pd.DataFrame, per_case: pd.DataFrame, count: int, task: Task) -> pd.DataFrame:
    """Choose the worst cases by the main region's Dice and the most uncertain ones, half each, the worst first.

    The list has ``count`` cases, or fewer where the worst are the most uncertain, too. ``scores`` has one row per case
    and region, ``per_case`` one row per case.

    Returns:
        Columns case, fold, those of :func:`work_columns` (NaN where unknown), rank_worst, rank_uncertain (from 1; NaN
        without a map).
    """
    main, columns = scores[scores["region"] == task.main_region].set_index("case"), work_columns(task)
    known = pd.DataFrame({"fold": main["fold"]})
    of_case = per_case.set_index("case")
    for column in (*region_dices(task), expected_dice_column(task)):
        known[column] = of_case.get(column, math.nan)
    known[f"hd95_{task.main_key}_mm"] = main["hd95_mm"]
    known["mean_uncertainty"] = main.get("mean_uncertainty", math.nan)
    known["rank_worst"] = known[f"dice_{task.main_key}"].rank(method="first")
    known["rank_uncertain"] = known["mean_uncertainty"].rank(method="first", ascending=False)
    worst = known.sort_values("rank_worst").index[: (count + 1) // 2]
    uncertain = known.dropna(subset=["rank_uncertain"]).sort_values("rank_uncertain").index[: count // 2]
    chosen = known.loc[list(dict.fromkeys([*worst, *uncertain])), ["fold", *columns, "rank_worst", "rank_uncertain"]]
    return chosen.reset_index(names="case")


def work_table(cases: pd.DataFrame, total: int, count: int, links: Mapping[str, str], task: Task) -> PageTable:
    """Return the table of :func:`work_list`; ``total`` are the cases of the run.

    A rank is named where it belongs to the worse half of ``count``, the number of cases that were asked for. ``links``
    holds the anchors of the cases' slices on the page.
    """
    rows, columns = [], work_columns(task)
    for row in cases.to_dict("records"):
        ranks = {"worst": row["rank_worst"], "most uncertain": row["rank_uncertain"]}
        why = ", ".join(f"{what} {rank:.0f}" for what, rank in ranks.items() if rank <= (count + 1) // 2)
        figures = [fixed(row[name], digits, unknown="") for name, (_, digits) in columns.items()]
        rows.append(Row([row["case"], str(row["fold"]), *figures, why], link=links.get(row["case"], "")))
    header = ["case", "fold", *(head for head, _ in columns.values()), "why"]
    note = (
        f"Ranks among {total} cases, by {task.main_region} Dice and by mean uncertainty. Expected Dice: the Dice if "
        "the values of the uncertainty map are the probabilities of an error."
    )
    return PageTable("work_list", "Cases to look at", header, rows, note, words=["why"])
