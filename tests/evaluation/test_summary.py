"""Means with intervals, risk against coverage, paired differences: closed forms and independent formulas."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from uncseg.evaluation.summary import bootstrap_mean, compare, risk_coverage, spearman, summarize


def frame(values, patients=None, region="WT", **columns):
    cases = [f"case{n:03d}" for n in range(len(values))]
    return pd.DataFrame({"case": cases, "patient": patients or cases, "region": region, "dice": values, **columns})


def test_the_interval_is_that_of_a_mean():
    values = pd.Series(np.random.default_rng(3).normal(0.8, 0.1, 400))
    low, high = bootstrap_mean(values, pd.Series(range(400)))
    error = values.std() / 20  # the central limit theorem
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_patients_are_drawn_and_not_scans():
    values = np.repeat(np.random.default_rng(0).normal(size=50), 8)  # eight equal scans each
    as_scans = bootstrap_mean(pd.Series(values), pd.Series(range(400)))
    by_patient = bootstrap_mean(pd.Series(values), pd.Series(np.repeat(range(50), 8)))
    ratio = np.diff(by_patient)[0] / np.diff(as_scans)[0]
    assert ratio == pytest.approx(math.sqrt(8), rel=0.1)


def test_of_few_patients_there_is_no_interval():
    random = np.random.default_rng(0)
    for count, known in ((9, False), (10, True)):
        summary = summarize(frame(random.random(count), mean_uncertainty=random.random(count))).set_index("figure")
        assert summary.loc["dice", "mean"] > 0
        for figure, column in (("dice", "ci_low"), ("aurc", "mean"), ("spearman_uncertainty_dice", "mean")):
            assert math.isfinite(summary.loc[figure, column]) == known


def test_what_is_not_known_is_left_out():
    summary = summarize(frame([0.5, math.nan, 1.0], auroc=[math.nan] * 3)).set_index("figure")
    assert summary.loc["dice", ["cases", "mean", "median"]].tolist() == [2, 0.75, 0.75]
    assert summary.loc["auroc", "cases"] == 0
    assert summary.loc["auroc", ["mean", "ci_low", "ci_high"]].isna().all()


def test_risk_and_coverage_by_hand():
    risk = np.array([0.1, 0.2, 0.6])
    # certain in the right order: risks of the best 1, 2, 3
    area, excess = risk_coverage(np.array([1.0, 2.0, 3.0]), risk)
    assert area == pytest.approx((0.1 + 0.15 + 0.3) / 3)
    assert excess == pytest.approx(0)
    area, excess = risk_coverage(np.array([3.0, 2.0, 1.0]), risk)
    assert area == pytest.approx((0.6 + 0.4 + 0.3) / 3)
    assert excess == pytest.approx((0.6 + 0.4 + 0.3) / 3 - (0.1 + 0.15 + 0.3) / 3)
    # a map that tells nothing has the mean risk at every coverage
    assert risk_coverage(np.zeros(3), risk)[0] == pytest.approx(0.3)
    assert math.isnan(risk_coverage(np.array([]), np.array([]))[0])


def test_case_level_figures_are_in_the_summary():
    random = np.random.default_rng(1)
    dices = random.random(30)
    u = 1 - dices + random.normal(0, 0.2, 30)
    summary = summarize(frame(dices, mean_uncertainty=u)).set_index("figure")
    expected = np.mean([(1 - dices)[np.argsort(u)][:k].mean() for k in range(1, 31)])
    assert summary.loc["aurc", "mean"] == pytest.approx(expected)
    assert summary.loc["spearman_uncertainty_dice", "mean"] == pytest.approx(stats.spearmanr(u, dices).statistic)
    row = summary.loc["spearman_uncertainty_dice"]
    assert -1 <= row["ci_low"] < row["mean"] < row["ci_high"] <= 1
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_paired_differences():
    random = np.random.default_rng(2)
    a = random.random(40)
    shift = random.normal(0.05, 0.02, 40)
    table = compare(frame(a, hd95_mm=10 * a), frame(a + shift, hd95_mm=10 * a)).set_index("figure")
    row = table.loc["dice"]
    assert row["difference"] == pytest.approx(shift.mean())
    assert row["mean_b"] - row["mean_a"] == pytest.approx(shift.mean())
    assert row["p_value"] == pytest.approx(stats.wilcoxon(shift).pvalue)
    # paired: far narrower than the spread of the cases themselves
    assert row["ci_high"] - row["ci_low"] < 0.02
    same = table.loc["hd95_mm"]
    assert (same["difference"], same["ci_low"], same["ci_high"], same["p_value"]) == (0, 0, 0, 1)


def test_only_cases_of_both_are_compared():
    a, b = frame([0.1, 0.2, 0.3]), frame([0.3, 0.4, 0.5]).iloc[1:]
    b.loc[2, "dice"] = math.nan
    row = compare(a, b).iloc[0]
    assert (row["cases"], row["difference"]) == (1, pytest.approx(0.2))
