"""The benchmark's scale, means, intervals and ranks on numbers whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uncseg.evaluation.summary import bootstrap_mean, risk_coverage
from uncseg.evaluation.uncertainty import protocol_mask
from uncseg.studies.benchmark.benchmark_table import (
    aurc_of_draws,
    benchmark_rows,
    benchmark_summary,
    fitted_factors,
    wide_table,
)
from uncseg.studies.benchmark.map_scores import score_method_case
from uncseg.studies.benchmark.ranking import ranking
from uncseg.tasks.built_in_tasks import paper_task

PAPER = paper_task()

SIZE = 18


def volumes(number, seed):
    random = np.random.default_rng([number, seed])
    distance = np.sqrt(sum((axis - 8.5) ** 2 for axis in np.ogrid[:SIZE, :SIZE, :SIZE]))
    reference = np.select([distance < 2, distance < 3, distance < 5 + 0.05 * number], [3, 1, 2], 0)
    predicted = np.select([distance < 2, distance < 3, distance + random.normal(0, 0.4, distance.shape) < 5], [3, 1, 2])
    return reference, predicted, distance < 8, random.random(distance.shape)


def scored(cases=6, seeds=2, folds=3):
    """A map of random numbers, the same of a tenth, ones and zeros, with the volumes they are of."""
    records, counts, seen = [], [], {}
    for number in range(cases):
        for seed in range(seeds):
            reference, predicted, brain, u = seen[number, seed] = volumes(number, seed)
            maps = {"random": u, "tenth": u / 10, "constant": np.ones_like(u), "nothing": np.zeros_like(u)}
            for method, values in maps.items():
                found = score_method_case(reference, predicted, values.astype(np.float32), brain, PAPER)
                keys = {"method": method, "segmentation": "shared", "seed": seed, "fold": number % folds}
                records.append(keys | {"case": f"c{number}", "patient": f"p{number}"} | found.figures)
                counts.append(found.counts)
    return pd.DataFrame(records), counts, seen


def test_the_factor_is_fitted_to_the_cases_of_the_other_folds():
    cases, counts, seen = scored()
    rows = benchmark_rows(cases, iter(counts))
    assert len(rows) == len(cases)
    for row in rows[rows["method"] == "random"].to_dict("records"):
        pieces = [
            (u[mask], ((reference > 0) != (predicted > 0))[mask])
            for (number, seed), (reference, predicted, _, u) in seen.items()
            if seed == row["seed"] and number % 3 != row["fold"]
            for mask in [protocol_mask(reference > 0, predicted > 0, "union")]
        ]
        u, e = (np.concatenate(part).astype(float) for part in zip(*pieces, strict=True))
        assert row["factor"] == pytest.approx(np.linalg.lstsq(u[:, None], e, rcond=None)[0][0], rel=1e-6)
        reference, predicted, _, u = seen[int(row["case"][1:]), row["seed"]]
        mask = protocol_mask(reference > 0, predicted > 0, "union")
        error = ((reference > 0) != (predicted > 0))[mask]
        expected = np.sqrt(np.mean((np.minimum(1, row["factor"] * u[mask]) - error) ** 2))
        assert row["rmsd_union"] == pytest.approx(expected, abs=1e-4)


def test_the_scale_of_a_map_makes_no_difference():
    cases, counts, _ = scored()
    rows = benchmark_rows(cases, counts).set_index("method")
    one, other = rows.loc["random"], rows.loc["tenth"]
    assert (10 * one["factor"]).to_numpy() == pytest.approx(other["factor"].to_numpy(), rel=1e-5)
    for figure in ("rmsd_reference", "rmsd_union", "qu_score", "mean_uncertainty", "auroc_band", "corr_failure_union"):
        assert one[figure].to_numpy() == pytest.approx(other[figure].to_numpy(), abs=2e-3)


def test_a_map_of_ones_becomes_the_mean_error_of_the_other_folds():
    cases, counts, seen = scored()
    rows = benchmark_rows(cases, counts)
    for row in rows[rows["method"] == "constant"].to_dict("records"):
        errors = []
        for (number, seed), (reference, predicted, _, _) in seen.items():
            if seed == row["seed"] and number % 3 != row["fold"]:
                a, b = reference > 0, predicted > 0
                errors.append((a != b)[protocol_mask(a, b, "union")])
        mean = np.concatenate(errors).mean()
        assert row["factor"] == pytest.approx(mean)
        assert row["mean_uncertainty"] == pytest.approx(mean)
        assert row["corr_failure_union"] == 0
    nothing = rows[rows["method"] == "nothing"]
    assert (nothing[["factor", "mean_uncertainty"]] == 0).all(axis=None)


def test_without_another_fold_there_is_no_scale():
    cases, counts, _ = scored(cases=2, seeds=1, folds=1)
    rows = benchmark_rows(cases, counts)
    assert rows[["factor", "rmsd_union", "ace", "qu_score", "mean_uncertainty"]].isna().all(axis=None)
    assert rows["corr_failure_union"].notna().all()


def test_two_rows_of_a_case_are_refused():
    cases, counts, _ = scored(cases=2, seeds=1)
    with pytest.raises(ValueError, match="more than one row"):
        benchmark_rows(pd.concat([cases, cases], ignore_index=True), counts * 2)
    with pytest.raises(ValueError, match="argument"):
        benchmark_rows(cases, counts[:-1])


def table(methods, cases=20, seeds=3, figure="corr_oracle_union", segmentations=("own", "shared"), dice_wt=0.9):
    """Rows with given means by method, a case's own difficulty, and noise."""
    random = np.random.default_rng(0)
    hard = random.normal(0, 0.1, cases)
    records = []
    for method, mean in methods.items():
        for seed in range(seeds):
            for number in range(cases):
                value = mean + hard[number] + random.normal(0, 0.01)
                for segmentation in segmentations:
                    keys = {"method": method, "segmentation": segmentation, "seed": seed, "fold": number % 2}
                    keys |= {"case": f"c{number:02d}", "patient": f"p{number:02d}"}
                    dices = {"dice_wt": dice_wt + hard[number] / 10, "dice_tc": 0.8, "dice_et": 0.7}
                    figures = {figure: value, "ace": 1 - value, "factor": 1.0, "mean_uncertainty": random.random()}
                    records.append(keys | dices | figures)
    return pd.DataFrame(records)


def test_means_are_over_seeds_and_then_over_cases():
    rows = table({"a": 0.5, "b": 0.3})
    # a case that one seed lacks counts as much as the others
    rows.loc[(rows["case"] == "c03") & (rows["seed"] == 0), "corr_oracle_union"] = math.nan
    summary = benchmark_summary(rows, PAPER).set_index(["method", "segmentation", "figure"])
    own = rows[(rows["method"] == "b") & (rows["segmentation"] == "own")]
    wide = own.pivot_table(index="case", columns="seed", values="corr_oracle_union")
    per_case = wide.mean(axis=1)
    found = summary.loc[("b", "own", "corr_oracle_union")]
    assert found["mean"] == pytest.approx(per_case.mean())
    assert found["seed_sd"] == pytest.approx(wide.mean().std(ddof=1))
    assert (found["cases"], found["patients"], found["seeds"]) == (20, 20, 3)
    low, high = bootstrap_mean(per_case, pd.Series(per_case.index, per_case.index))
    # seeds differ by little here: 0.01 beside 0.1 of the cases
    assert (found["ci_low"], found["ci_high"]) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))
    assert not {"factor", "fold"} & set(summary.index.get_level_values("figure"))


def test_aurc_is_the_mean_over_seeds():
    rows = table({"a": 0.5})
    rows.loc[rows["seed"] == 1, "mean_uncertainty"] = 0.25  # says nothing: the mean risk at every coverage
    summary = benchmark_summary(rows, PAPER).set_index(["segmentation", "figure"])
    areas = [
        risk_coverage(own["mean_uncertainty"].to_numpy(), 1 - own["dice_wt"].to_numpy())[0]
        for _, own in rows[rows["segmentation"] == "own"].groupby("seed")
    ]
    found = summary.loc[("own", "aurc")]
    assert found["mean"] == pytest.approx(np.mean(areas))
    assert found["ci_low"] < found["mean"] < found["ci_high"]
    assert found["seed_sd"] == pytest.approx(np.std(areas, ddof=1))


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_aurc_of_a_resample_is_that_of_its_cases(seed, cases):
    random = np.random.default_rng(seed)
    u, risk = random.integers(0, 4, cases) / 4, random.random(cases)
    times = random.integers(0, 3, (5, cases))
    found = aurc_of_draws(u, risk, times)
    for value, row in zip(found, times, strict=True):
        chosen = np.repeat(np.arange(cases), row)
        assert value == pytest.approx(risk_coverage(u[chosen], risk[chosen])[0], nan_ok=True)


def test_fewer_than_ten_patients_have_no_intervals():
    for count, known in ((9, False), (10, True)):
        rows = table({"a": 0.5, "b": 0.4}, cases=count)
        summary = benchmark_summary(rows, PAPER).set_index(["method", "segmentation", "figure"]).loc[("a", "own")]
        assert math.isfinite(summary.loc["corr_oracle_union", "mean"])
        assert math.isfinite(summary.loc["corr_oracle_union", "ci_low"]) == known
        assert math.isfinite(summary.loc["aurc", "mean"]) == known
        ranked = ranking(rows, PAPER, floors=("b",))
        assert ranked["rank"].tolist() == [1, 2]
        assert ranked["lead"].notna().all()
        assert ranked[["ci_low", "rank_low", "lead_low"]].notna().all(axis=None) == known


def test_a_method_that_segments_badly_is_not_compared():
    good, bad = table({"good": 0.5}), table({"bad": 0.9}, dice_wt=0.8)
    # its uncertainty is not compared on a good segmentation either
    bad.loc[bad["segmentation"] == "shared", "dice_wt"] = 0.9
    rows = pd.concat([good, bad], ignore_index=True)
    summary = benchmark_summary(rows, PAPER).set_index(["method", "segmentation", "figure"])
    assert summary.groupby("method")["compared"].agg(["any", "all"]).to_dict("index") == {
        "bad": {"any": False, "all": False},
        "good": {"any": True, "all": True},
    }
    assert summary.loc[("bad", "own", "dice_wt"), "mean"] == pytest.approx(0.8, abs=0.01)
    for figure in ("corr_oracle_union", "ace", "aurc"):
        assert math.isnan(summary.loc[("bad", "shared", figure), "mean"])
    ranked = ranking(rows, PAPER, floors=()).set_index("method")
    assert ranked.loc["good", "rank"] == 1
    assert ranked.loc["bad", ["mean", "rank"]].isna().all()
    assert benchmark_summary(rows, PAPER, least_dice=0.7)["compared"].all()


def test_ranks_leads_and_their_intervals_are_paired():
    # cases differ ten times more than methods; resampled together the order is sure all the same
    methods = {"second": 0.5, "floor": 0.47, "first": 0.53, "oracle": 0.9, "constant": 0.0}
    ranked = ranking(table(methods), PAPER, floors=("floor", "constant", "absent")).set_index("method")
    assert ranked.index.tolist() == ["oracle", "first", "second", "floor", "constant"]
    assert ranked["rank"].tolist() == [pd.NA, 1, 2, 3, 4]
    assert (ranked["rank_low"].dropna() == ranked["rank_high"].dropna()).all()
    lead = ranked.loc["first"]
    assert lead["lead"] == pytest.approx(0.06, abs=0.01)
    assert lead["lead_low"] > 0.05
    assert lead["lead_high"] - lead["lead_low"] < 0.2 * (lead["ci_high"] - lead["ci_low"])
    assert ranked.loc["floor", ["lead", "lead_low", "lead_high"]].tolist() == [0, 0, 0]
    assert ranked.loc[["first", "floor"], "best_floor"].tolist() == ["floor", "floor"]
    assert pd.isna(ranked.loc["oracle", "lead"])
    assert ranked["floor"].tolist() == [False, False, False, True, True]


def test_equal_methods_share_ranks_and_a_small_error_is_a_good_one():
    rows = table({"a": 0.5, "b": 0.5, "c": 0.2})
    ranked = ranking(rows, PAPER, floors=("c",)).set_index("method")
    assert (ranked.loc[["a", "b"], "rank_low"].tolist(), ranked.loc["c", "rank_low"]) == ([1, 1], 3)
    assert ranked["rank_high"].to_dict() == {"a": 2, "b": 2, "c": 3}
    by_error = ranking(rows, PAPER, "ace", "shared", floors=("c",)).set_index("method")
    assert by_error["rank"]["c"] == 3
    assert (by_error.loc[["a", "b"], "lead"] > 0.2).all()
    same = rows[rows["method"] == "a"]
    tied = ranking(pd.concat([same, same.assign(method="d")]), PAPER, floors=())
    assert tied["rank"].tolist() == [1, 1]
    assert tied["lead"].isna().all()


def test_methods_without_the_figure_have_no_rank():
    rows = table({"a": 0.5}).assign(corr_oracle_union=math.nan)
    ranked = ranking(rows, PAPER)
    assert ranked["rank"].isna().all()
    assert ranked["method"].tolist() == ["a"]
    assert ranking(rows[rows["segmentation"] == "own"], PAPER).empty


def test_the_wide_table_has_one_row_per_method():
    summary = benchmark_summary(table({"head": 0.5, "border_distance": 0.4}), PAPER)
    costs = pd.DataFrame([{"method": "head", "passes": 1, "models": 1, "training_cost": 1.2, "inference_cost": 1.04}])
    wide = wide_table(summary, costs, PAPER, floors=("border_distance",)).set_index("method")
    assert wide.index.tolist() == ["head", "border_distance"]
    assert wide["floor"].tolist() == [False, True]
    assert wide.loc["head", "inference_cost"] == 1.04
    assert math.isnan(wide.loc["border_distance", "passes"])
    found = summary.set_index(["method", "segmentation", "figure"]).loc[("head", "shared", "corr_oracle_union")]
    columns = ["shared_corr_oracle_union", "shared_corr_oracle_union_low", "shared_corr_oracle_union_high"]
    assert wide.loc["head", columns].tolist() == found[["mean", "ci_low", "ci_high"]].tolist()
    assert math.isnan(wide.loc["head", "own_rmsd_union"])
    assert (wide["cases"].tolist(), wide["seeds"].tolist()) == ([20, 20], [3, 3])


def test_factors_are_fitted_per_method_segmentation_and_seed():
    keys = {"case": ["a", "b"], "patient": ["a", "b"], "fold": [0, 1]}
    parts = [
        pd.DataFrame(keys | {"method": m, "segmentation": s, "seed": n, "sum_ue": [x, 2 * x], "sum_uu": [1.0, 1.0]})
        for x, (m, s, n) in enumerate([("a", "own", 0), ("a", "own", 1), ("a", "shared", 0), ("b", "own", 0)])
    ]
    factors = fitted_factors(pd.concat(parts, ignore_index=True))
    assert factors.tolist() == [0, 0, 2, 1, 4, 2, 6, 3]
