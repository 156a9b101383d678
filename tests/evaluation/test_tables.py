"""Tables on figures small enough to work out by hand."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from uncseg.evaluation.tables import beats_floor, show_table1, show_table2, table1, table2, write_table


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


def epochs():
    rows = []
    for fold, start in ((0, 0.5), (1, 0.3)):
        for epoch in range(4):
            row = {"fold": fold, "epoch": epoch}
            for protocol in ("reference", "union"):
                for name in ("uncertainty", "one_minus_p"):
                    row[f"uncertainty/{name}/{protocol}/corr_ema"] = start + 0.1 * epoch
                    row[f"uncertainty/{name}/{protocol}/rmsd_ema"] = 0.2
            rows.append(row)
    return pd.DataFrame(rows)


def test_table1_by_hand():
    table = table1(per_case(), per_case().assign(dice_wt=0.5)).set_index(["model", "fold"])
    assert table.loc[("with head", "0"), "dice_wt"] == pytest.approx(0.85)
    assert table.loc[("with head", "mean"), "dice_wt"] == pytest.approx((0.85 + 0.7) / 2)
    assert table.loc[("with head", "sd"), "dice_wt"] == pytest.approx(0.15 / 2**0.5)
    assert table.loc[("without head", "mean"), "dice_wt"] == pytest.approx(0.5)
    assert table.loc[("with head", "mean"), "cases"] == 4
    assert table.loc[("with head", "paper"), "dice_wt"] == 0.9163


def test_a_run_without_the_head_is_named_so():
    frame = per_case()
    frame = frame.drop(columns=[column for column in frame.columns if column.startswith("uncertainty/")])
    assert set(table1(frame)["model"]) == {"without head"}


def test_table2_by_hand():
    table = table2(per_case(), epochs(), last_epochs=2).set_index(["protocol", "estimator"])
    head = table.loc[("reference", "uncertainty")]
    assert head["corr_ema_last"] == pytest.approx(((0.7 + 0.8) / 2 + (0.5 + 0.6) / 2) / 2)
    assert head["corr_ema_final"] == pytest.approx((0.8 + 0.6) / 2)
    # the case without a valid correlation is left out of its fold's mean
    assert head["corr_failure"] == pytest.approx((0.8 + 0.6) / 2)
    assert head["corr_failure_std"] == pytest.approx(0.2 / 2**0.5)
    assert head["paper_corr"] == 0.96556
    assert np.isnan(table.loc[("union", "uncertainty"), "paper_corr"])
    assert table.loc[("union", "one_minus_p"), "floor"]


def test_the_verdict_says_so_where_the_head_loses():
    reference, reference_failure, union, union_failure = beats_floor(table2(per_case(), epochs(), 2))
    assert "does not exceed" in reference
    assert "does not exceed" in reference_failure
    assert "does not exceed" in union
    assert "does not" not in union_failure


def test_tables_fit_a_terminal_and_fill_every_row():
    screen = Console(file=io.StringIO(), width=120)
    screen.print(show_table1(table1(per_case(), None)))
    screen.print(show_table2(table2(per_case(), epochs(), 2)))
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert "nan" not in text
    assert "0.7750±0.1061" in text


def test_written_whole(tmp_path):
    write_table(per_case(), tmp_path, "per_case")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "per_case.parquet"), per_case())
    assert pd.read_csv(tmp_path / "per_case.csv").shape == per_case().shape
    assert sorted(file.name for file in tmp_path.iterdir()) == ["per_case.csv", "per_case.parquet"]
