"""Table 3: its figures against scikit-learn and their formulas, its leads over the best floor, and its sentences."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss

from uncseg.evaluation.failure_table import failures_table, regions_table, table3, table4, verdicts
from uncseg.evaluation.uncertainty import score_failures
from uncseg.tasks.built_in_tasks import paper_task

KINDS = ("auprc", "brier", "ece", "corr")


def cases(patients=12, **maps):
    """One row per case; a map's figures are (auprc, brier, ece, corr), with 0.01 · patient added to each."""
    rows = []
    for patient in range(patients):
        row = {"case": f"c{patient}", "patient": f"p{patient}", "fold": patient % 2}
        for name, figures in maps.items():
            row |= {f"{name}/union/{k}_failure": v + patient / 100 for k, v in zip(KINDS, figures, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)


def test_the_figures_of_a_map_are_those_of_their_definitions():
    random = np.random.default_rng(0)
    failure = random.random((10, 11, 12)) < 0.2
    u = (0.4 * failure + 0.6 * random.random(failure.shape)).astype(np.float32)
    mask = random.random(failure.shape) < 0.7
    found = score_failures(u, failure, mask)
    f, v = failure[mask].astype(int), u[mask].astype(float)
    assert found["auprc"] == pytest.approx(average_precision_score(f, v), abs=1e-9)
    assert found["brier"] == pytest.approx(brier_score_loss(f, v), abs=1e-9)
    assert found["corr"] == pytest.approx(np.corrcoef(v, f)[0, 1], abs=1e-9)
    bins = np.minimum((v * 20).astype(int), 19)
    gaps = [abs((v - f)[bins == b].sum()) for b in range(20)]
    assert found["ece"] == pytest.approx(sum(gaps) / len(v), abs=1e-9)
    assert found["rmsd"] ** 2 == pytest.approx(found["brier"], rel=1e-6)


def test_a_constant_map_has_the_share_of_failures_and_no_correlation():
    failure = np.arange(1000).reshape(10, 10, 10) < 300
    mask = np.ones_like(failure)
    found = score_failures(np.full(failure.shape, 0.3, np.float32), failure, mask)
    assert found["auprc"] == pytest.approx(0.3)
    assert found["brier"] == pytest.approx(0.21)
    assert found["corr"] == 0
    assert found["ece"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("failure", [np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)], ids=["right", "wrong"])
def test_a_case_without_wrong_or_right_voxels_counts_for_nothing(failure):
    random = np.random.default_rng(0).random(failure.shape)
    found = score_failures(random, failure, np.ones_like(failure))
    assert all(math.isnan(found[kind]) for kind in KINDS)


def test_a_map_is_compared_with_the_best_floor_of_each_figure():
    maps = {
        "uncertainty": (0.5, 0.2, 0.10, 0.6),
        "calibrated": (0.4, 0.1, 0.05, 0.5),
        "min_p": (0.3, 0.3, 0.20, 0.7),
        "variance_stable": (0.9, 0.0, 0.0, 0.9),  # no floor
    }
    table = table3(cases(**maps)).set_index("estimator")
    assert table.index.tolist() == ["uncertainty", "variance_stable", "calibrated", "min_p"]
    assert table.index[table["floor"]].tolist() == ["calibrated", "min_p"]
    head = table.loc["uncertainty"]
    floors = {"auprc": "calibrated", "brier": "calibrated", "ece": "calibrated", "corr": "min_p"}
    assert {kind: head[f"{kind}_failure_floor"] for kind in KINDS} == floors
    leads = {"auprc": 0.1, "brier": -0.1, "ece": -0.05, "corr": -0.1}
    for kind, lead in leads.items():
        # each patient adds the same to both, so that the paired interval has no width
        ends = [head[f"{kind}_failure_lead{end}"] for end in ("", "_low", "_high")]
        assert ends == pytest.approx([lead] * 3)
        assert head[f"{kind}_failure_high"] - head[f"{kind}_failure_low"] > 0.02
    assert table["auprc_failure"].to_dict() == pytest.approx(
        {name: figures[0] + 0.055 for name, figures in maps.items()}
    )
    assert np.isnan(table.loc["calibrated", "auprc_failure_lead"])


def test_the_sentences_say_whether_the_interval_excludes_zero():
    frame = cases(cross_fitted=(0.5, 0.2, 0.1, 0.6), calibrated=(0.4, 0.1, 0.1, 0.6))
    frame["cross_fitted/union/corr_failure"] += np.where(frame["fold"] == 0, 0.1, -0.1)
    better, worse, alike, unclear = verdicts(table3(frame))
    assert (
        "AUPRC of failures: the cross-fitted map 0.555 is better than the best floor's (calibrated) by +0.100" in better
    )
    assert "Brier score: the cross-fitted map 0.255 is worse than the best floor's (calibrated) by −0.100" in worse
    assert "is not told apart from" in alike
    assert "is not told apart from" in unclear
    assert verdicts(table3(cases(calibrated=(0.4, 0.1, 0.1, 0.6)))) == []
    (few, *_) = verdicts(table3(cases(patients=4, uncertainty=(0.5, 0.2, 0.1, 0.6), min_p=(0.4, 0.1, 0.1, 0.6))))
    assert few.endswith("fewer than 10 patients, unproven.")
    (none, *_) = verdicts(table3(cases(uncertainty=(0.5, 0.2, 0.1, 0.6))))
    assert none.endswith("so nothing is shown.")


def test_second_opinions_stand_behind_the_maps_of_one_pass_and_are_no_floors():
    maps = {"cross_fitted": (0.5, 0.2, 0.1, 0.6), "min_p": (0.4, 0.1, 0.1, 0.6)}
    frame, told = cases(**maps), ("deep_ensemble_epistemic", "deep_ensemble_against_decision")
    for name in told:
        for kind in KINDS:
            frame[f"second_opinion/{name}/union/{kind}_failure"] = 0.9 if kind in ("auprc", "corr") else 0.0
            # the ensemble against its own decision, which is Table 2's
            frame[f"{name}/union/{kind}_failure"] = 0.123
    table = table3(frame)
    assert table["estimator"].tolist() == ["cross_fitted", "min_p", *told]
    assert table["floor"].tolist() == [False, True, False, False]
    assert table["auprc_failure"].tolist()[2:] == [0.9, 0.9]
    assert table.loc[0, "auprc_failure_floor"] == "min_p", "better than the second opinions by nothing of its own cost"
    shown = failures_table(table, paper_task())
    assert [row.cells[0] for row in shown.rows] == [
        *("cross_fitted", "min_p *", "second opinions, of several predictions"),
        *told,
    ]
    assert "against_decision" in shown.note
    assert "against_decision" not in failures_table(table3(cases(**maps)), paper_task()).note


def test_the_table_for_people_has_intervals_and_marks_floors():
    table = failures_table(table3(cases(uncertainty=(0.5, 0.2, 0.1, 0.6), min_p=(0.4, 0.1, 0.1, 0.6))), paper_task())
    assert [row.cells[0] for row in table.rows] == ["uncertainty", "min_p *"]
    assert [row.kind for row in table.rows] == ["strong", "floor"]
    assert table.rows[0].cells[1].startswith("0.555 [0.5")
    assert failures_table(table3(pd.DataFrame({"case": [], "patient": []})), paper_task()).rows == []


def test_each_region_has_its_own_maps_floors_and_leads():
    whole = cases(min_p=(0.4, 0.2, 0.1, 0.5), cross_fitted=(0.5, 0.1, 0.1, 0.6)).assign(region="WT")
    core = cases(min_p=(0.7, 0.1, 0.1, 0.5), cross_fitted=(0.6, 0.2, 0.1, 0.4)).assign(region="TC")
    table = table4(pd.concat([whole, core], ignore_index=True)).set_index(["region", "estimator"])
    # 0.01 for each patient number, which is 0.055 in the mean of twelve
    assert table.loc[("WT", "cross_fitted"), "auprc_failure"] == pytest.approx(0.555)
    assert table.loc[("WT", "cross_fitted"), "auprc_failure_lead"] == pytest.approx(0.1)
    assert table.loc[("TC", "cross_fitted"), "auprc_failure_lead"] == pytest.approx(-0.1)
    page = regions_table(table.reset_index())
    assert [row.cells[0] for row in page.rows] == ["WT", "cross_fitted", "min_p *", "TC", "cross_fitted", "min_p *"]
    assert page.rows[5].cells[1].startswith("0.755")
