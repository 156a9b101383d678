"""Intervals over seeds and patients, floors of a map's own network, and the lead of one map over every other."""

import math

import pandas as pd
import pytest

from uncseg.studies.benchmark.benchmark_table import benchmark_summary
from uncseg.studies.benchmark.ranking import leads_over_all, ranking
from uncseg.tasks.built_in_tasks import paper_task

PAPER = paper_task()


def by_seed(method, means, cases=20):
    """Rows of a method whose cases are all alike, and whose seeds are not."""
    keys = {"method": method, "dice_wt": 0.9, "mean_uncertainty": 0.1}
    return pd.DataFrame(
        keys
        | {"segmentation": where, "seed": seed, "fold": 0, "case": f"c{n}", "patient": f"p{n}", "auprc_union": mean}
        for where in ("own", "shared")
        for seed, mean in enumerate(means)
        for n in range(cases)
    )


def test_intervals_resample_seeds_as_well_as_patients():
    # no patient differs from another: all that is uncertain comes from the two trainings, of which each is drawn
    # twice in a quarter of the resamples
    rows = pd.concat([by_seed("t/a", [0.2, 0.6]), by_seed("t/b", [0.1, 0.5])], ignore_index=True)
    summary = benchmark_summary(rows, PAPER).set_index(["method", "segmentation", "figure"])
    found = summary.loc[("t/a", "shared", "auprc_union")]
    assert found[["mean", "ci_low", "ci_high"]].tolist() == pytest.approx([0.4, 0.2, 0.6])
    ranked = ranking(rows, PAPER, "auprc_union", floors=["t/b"]).set_index("method")
    assert ranked.loc["t/a", ["ci_low", "ci_high"]].tolist() == pytest.approx([0.2, 0.6])
    # the same seeds of both are drawn together, and the lead is 0.1 for each
    assert ranked.loc["t/a", ["lead", "lead_low", "lead_high"]].tolist() == pytest.approx([0.1] * 3)
    assert ranked.loc["t/a", "lead_seed_sd"] == pytest.approx(0, abs=1e-9)
    crossed = pd.concat([by_seed("t/a", [0.2, 0.6]), by_seed("t/b", [0.5, 0.1])], ignore_index=True)
    lead = ranking(crossed, PAPER, "auprc_union", floors=["t/b"]).set_index("method").loc["t/a"]
    assert lead[["lead", "lead_low", "lead_high"]].tolist() == pytest.approx([0.1, -0.3, 0.5])
    assert lead["lead_seed_sd"] == pytest.approx(math.sqrt(0.32))


def test_on_its_own_segmentation_a_map_is_held_against_the_floors_of_its_own_network():
    means = {"plain/min_p": 0.9, "plain/head": 0.8, "other/min_p": 0.3, "other/head": 0.5}
    rows = pd.concat([by_seed(name, [mean]) for name, mean in means.items()], ignore_index=True)
    floors = ["plain/min_p", "other/min_p"]
    own = ranking(rows, PAPER, "auprc_union", "own", floors).set_index("method")
    assert own["best_floor"].to_dict() == {name: f"{name.partition('/')[0]}/min_p" for name in means}
    assert own["lead"].to_dict() == pytest.approx(
        {"plain/min_p": 0, "plain/head": -0.1, "other/min_p": 0, "other/head": 0.2}
    )
    shared = ranking(rows, PAPER, "auprc_union", "shared", floors[:1]).set_index("method")
    assert shared.loc["other/head", "lead"] == pytest.approx(-0.4)


def test_the_proposed_map_leads_over_every_other_method_but_the_oracle():
    means = {"t/new": 0.5, "t/near": 0.45, "t/far": 0.1, "oracle": 0.9}
    rows = pd.concat([by_seed(name, [mean, mean]) for name, mean in means.items()], ignore_index=True)
    rows["brier_union"] = 1 - rows["auprc_union"]
    for figure in ("auprc_union", "brier_union"):  # one is better high, the other low
        leads = leads_over_all(rows, PAPER, figure, "t/new")
        assert leads["method"].tolist() == ["t/near", "t/far"]
        assert leads["lead"].tolist() == pytest.approx([0.05, 0.4])
    assert leads_over_all(rows, PAPER, "auprc_union", "t/absent").empty


def test_an_error_network_is_held_against_the_floors_of_the_network_that_it_judges():
    means = {"plain/min_p": 0.4, "judge/uncertainty": 0.6}
    rows = pd.concat([by_seed(name, [mean]) for name, mean in means.items()], ignore_index=True)
    of = {"judge/uncertainty": "plain"}
    own = ranking(rows, PAPER, "auprc_union", "own", ["plain/min_p"], deciding=of).set_index("method")
    assert own.loc["judge/uncertainty", "best_floor"] == "plain/min_p"
    assert own.loc["judge/uncertainty", "lead"] == pytest.approx(0.2)


def test_a_lead_is_over_the_seeds_and_cases_that_both_have():
    # the second seed is easier for all; a method that lacks it is compared on the first alone
    rows = pd.concat([by_seed("t/a", [0.2, 0.8]), by_seed("t/b", [0.1])], ignore_index=True)
    lead = ranking(rows, PAPER, "auprc_union", floors=["t/b"]).set_index("method").loc["t/a"]
    assert lead["mean"] == pytest.approx(0.5)
    assert lead[["lead", "lead_low", "lead_high"]].tolist() == pytest.approx([0.1] * 3)
    assert math.isnan(lead["lead_seed_sd"])
    leads = leads_over_all(rows, PAPER, "auprc_union", "t/a")
    assert leads["lead"].tolist() == pytest.approx([0.1])
