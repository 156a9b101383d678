"""Tables on figures small enough to work out by hand."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from uncseg.evaluation.page_tables import dice_table, uncertainty_table
from uncseg.evaluation.tables import PAPER, beats_floor, table1, table2
from uncseg.tasks.built_in_tasks import paper_task

PROTOCOLS = ("reference", "union")


def per_case():
    rows = []
    for case, fold, wt, corr in (("a", 0, 0.8, 0.9), ("b", 0, 0.9, 0.7), ("c", 1, 0.6, 0.6), ("d", 1, 0.8, np.nan)):
        row = {"case": case, "patient": case, "fold": fold}
        row |= {"dice_wt": wt, "dice_tc": wt - 0.1, "dice_et": wt - 0.2, "dice_mean": wt - 0.1}
        for protocol in ("reference", "union"):
            for name, shift in (("uncertainty", 0.0), ("one_minus_p", 0.05)):
                row[f"{name}/{protocol}/corr_failure"] = corr + shift * (1 if protocol == "reference" else -1)
                row[f"{name}/{protocol}/rmsd_failure"] = 0.1
        rows.append(row)
    return pd.DataFrame(rows)


def without_head(frame):
    return frame.drop(columns=[column for column in frame.columns if column.startswith("uncertainty/")])


def epochs():
    rows = []
    for fold, start in ((0, 0.5), (1, 0.3)):
        for epoch in range(4):
            row = {"fold": fold, "epoch": epoch}
            for protocol in ("reference", "union"):
                for name in ("uncertainty", "one_minus_p"):
                    row[f"uncertainty/{protocol}/corr_ema/{name}"] = start + 0.1 * epoch
                    row[f"uncertainty/{protocol}/rmsd_ema/{name}"] = 0.2
            rows.append(row)
    return pd.DataFrame(rows)


def test_table1_by_hand():
    table = table1(per_case(), paper_task(), without_head(per_case()).assign(dice_wt=0.5)).set_index(["model", "fold"])
    assert table.loc[("with head", "0"), "dice_wt"] == pytest.approx(0.85)
    assert table.loc[("with head", "mean"), "dice_wt"] == pytest.approx((0.85 + 0.7) / 2)
    assert table.loc[("with head", "sd"), "dice_wt"] == pytest.approx(0.15 / 2**0.5)
    assert table.loc[("without head", "mean"), "dice_wt"] == pytest.approx(0.5)
    assert table.loc[("with head", "mean"), "cases"] == 4
    assert table.loc[("with head", PAPER), "dice_wt"] == 0.9163
    assert table.loc[("without head", PAPER), ["dice_wt", "dice_tc", "dice_et"]].tolist() == [0.9179, 0.9169, 0.8710]


def test_models_are_named_by_what_their_scores_hold():
    frame = per_case()
    assert set(table1(without_head(frame), paper_task())["model"]) == {"without head"}
    assert set(table1(frame, paper_task(), without_head(frame))["model"]) == {"with head", "without head"}
    mistaken = table1(frame, paper_task(), frame)
    assert set(mistaken["model"]) == {"with head", "with head, baseline"}
    assert set(mistaken.loc[mistaken["fold"] == PAPER, "dice_wt"]) == {0.9163}


def test_table2_by_hand():
    table = table2(per_case(), epochs(), 2, paper_task()).set_index(["protocol", "estimator"])
    head = table.loc[("reference", "uncertainty")]
    assert head["corr_ema_last"] == pytest.approx(((0.7 + 0.8) / 2 + (0.5 + 0.6) / 2) / 2)
    assert head["corr_ema_final"] == pytest.approx((0.8 + 0.6) / 2)
    # the case without a valid correlation is left out of its fold's mean
    assert head["corr_failure"] == pytest.approx((0.8 + 0.6) / 2)
    assert head["corr_failure_std"] == pytest.approx(0.2 / 2**0.5)
    assert head["paper_corr"] == 0.96556
    assert np.isnan(table.loc[("union", "uncertainty"), "paper_corr"])
    assert table.loc[("union", "one_minus_p"), "floor"]


def test_table2_leaves_invalid_epochs_and_folds_out():
    frame = epochs()
    column = "uncertainty/reference/corr_ema/uncertainty"
    frame.loc[(frame["fold"] == 0) & (frame["epoch"] == 3), column] = np.nan
    frame.loc[frame["fold"] == 1, column] = np.nan
    head = table2(per_case(), frame.sample(frac=1, random_state=0), 2, paper_task()).set_index(
        ["protocol", "estimator"]
    )
    head = head.loc[("reference", "uncertainty")]
    assert head["corr_ema_last"] == pytest.approx(0.7)
    assert np.isnan(head["corr_ema_last_std"])
    assert np.isnan(head["corr_ema_final"])


def test_table2_keeps_its_order_and_its_columns():
    floors = ["var1shot", "calibrated", "min_p", "one_minus_p", "border_distance", "constant"]
    order = ["uncertainty", "variance_stable", *floors, "oracle"]
    scores = {f"{name}/{p}/{k}_failure": 0.1 for name in reversed(order) for p in PROTOCOLS for k in ("rmsd", "corr")}
    table = table2(pd.DataFrame({"fold": [0, 1], **scores}), epochs(), 2, paper_task())
    for protocol in PROTOCOLS:
        rows = table[table["protocol"] == protocol]
        assert rows["estimator"].tolist() == order
        assert rows.loc[rows["floor"], "estimator"].tolist() == floors
    empty = table2(pd.DataFrame({"fold": []}), pd.DataFrame({"fold": [], "epoch": []}), 2, paper_task())
    assert empty.columns.tolist() == table.columns.tolist()
    assert beats_floor(empty) == []
    assert uncertainty_table(empty, 2, paper_task()).rows == []
    only_epochs = table2(pd.DataFrame({"fold": [0], "case": ["a"]}), epochs(), 2, paper_task())
    assert only_epochs["corr_failure"].isna().all()
    assert only_epochs["corr_ema_last"].notna().all()


def test_the_verdict_says_so_where_the_head_loses():
    reference, reference_failure, union, union_failure = beats_floor(table2(per_case(), epochs(), 2, paper_task()))
    assert "does not exceed" in reference
    assert "does not exceed" in reference_failure
    assert "0.700 ± 0.141 does not exceed the best floor's (one_minus_p, 0.750 ± 0.141)" in reference_failure
    assert "does not exceed" in union
    assert "exceeds the best floor's (one_minus_p, 0.650 ± 0.141) by 0.0500, within the standard" in union_failure
    assert union_failure.endswith("unproven.")


@pytest.mark.parametrize(
    ("head", "sd", "ending"),
    [
        (0.9, 0.1, "by 0.4000."),
        (0.55, 0.1, "unproven."),
        (0.9, np.nan, "single fold, unproven."),
        (np.nan, 0.1, "shown."),
    ],
)
def test_the_verdict_weighs_the_lead_against_the_deviation_between_folds(head, sd, ending):
    rows = [
        {"protocol": "union", "estimator": name, "floor": floor, "corr_ema_last": mean, "corr_failure": mean}
        | {"corr_ema_last_std": sd, "corr_failure_std": sd}
        for name, floor, mean in (
            ("uncertainty", False, head),
            ("one_minus_p", True, 0.2),
            ("constant", True, 0.5),
            ("border_distance", True, np.nan),
            ("oracle", False, 1.0),
        )
    ]
    for line in beats_floor(pd.DataFrame(rows)):
        assert line.endswith(ending)
        assert "nan" not in line
        assert "constant" in line or "shown" in line


def test_tables_fit_a_terminal_of_110_columns():
    wide = per_case().rename(columns=lambda name: name.replace("one_minus_p", "border_distance"))
    frames = wide.copy(), epochs().rename(columns=lambda name: name.replace("one_minus_p", "border_distance"))
    for frame in frames:
        columns = [column for column in frame.columns if "/corr_" in column]
        frame[columns] = -frame[columns]
    screen = Console(file=io.StringIO(), width=300)
    screen.print(dice_table(table1(per_case(), paper_task(), without_head(per_case())), paper_task()).to_rich())
    screen.print(uncertainty_table(table2(*frames, 2, paper_task()), 2, paper_task()).to_rich())
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= 110
    assert "nan" not in text
    assert "0.7750 ± 0.1061" in text
    assert "−0.700 ± 0.141" in text


def test_a_figure_that_nothing_was_valid_for_is_not_a_number():
    frame = per_case().assign(**{"uncertainty/union/corr_failure": np.nan})
    screen = Console(file=io.StringIO(), width=110)
    screen.print(uncertainty_table(table2(frame, epochs(), 2, paper_task()), 2, paper_task()).to_rich())
    assert "none valid" in screen.file.getvalue()
    assert "nan" not in screen.file.getvalue()
