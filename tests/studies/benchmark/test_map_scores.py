"""A method's map of one case: counts give what the single functions give of the map, before and after a scale."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from support.own_tasks import PROSTATE
from uncseg.evaluation.calibration import calibration_errors, reliability
from uncseg.evaluation.detection import boundary_band, error_detection
from uncseg.evaluation.expectation import mean_uncertainty
from uncseg.evaluation.qu_brats import qu_brats
from uncseg.evaluation.uncertainty import protocol_mask, rmsd, score_map
from uncseg.studies.benchmark.map_scores import HISTOGRAMS, scaled_figures, score_method_case
from uncseg.tasks.built_in_tasks import built_in, paper_task

PAPER, POST = paper_task(), built_in("gli-2024")

SHAPE = (9, 8, 10)
labels = arrays(np.uint8, SHAPE, elements=st.sampled_from((0, 0, 1, 2, 3)))
masks = arrays(bool, SHAPE)
steps = arrays(np.int64, SHAPE, elements=st.integers(0, 1000))


def case(seed=0, size=22, noise=2.0):
    """Reference, prediction, brain and q of a blurred ball."""
    random = np.random.default_rng(seed)
    middle = (size - 1) / 2
    distance = np.sqrt(sum((axis - middle) ** 2 for axis in np.ogrid[:size, :size, :size]))
    reference, predicted = (
        np.select([d < 2, d < 4, d < 6], [3, 1, 2], 0).astype(np.uint8)
        for d in (distance, distance + random.normal(0, noise, distance.shape))
    )
    return reference, predicted, distance < 9, 1 / (1 + np.exp(distance - 6))


def in_union(a, b, u):
    """Brier score and ECE by their definitions, voxel by voxel."""
    mask = protocol_mask(a, b, "union")
    if not mask.any():
        return {"brier_union": math.nan, "ece_union": math.nan}
    values, wrong = u[mask].astype(float), (a != b)[mask].astype(float)
    bins = np.digitize(values, np.round(np.linspace(0, 1, 21)[1:-1], 12))  # 0.95 itself, and not 19 · 0.05
    gaps = [abs((values - wrong)[bins == number].sum()) for number in range(20)]
    return {"brier_union": np.square(values - wrong).mean(), "ece_union": sum(gaps) / len(values)}


def expected_figures(reference, predicted, u, brain):
    """What the functions of single maps say of a map."""
    a, b = reference > 0, predicted > 0
    percent = np.round(100 * u, 9)
    return {
        **{f"rmsd_{name}": rmsd(u, a != b, protocol_mask(a, b, name)) for name in ("reference", "union")},
        **calibration_errors(reliability(u, a != b, brain)),
        **in_union(a, b, u),
        "qu_score": qu_brats(a, b, percent, brain)["qu_score"],
        "mean_uncertainty": mean_uncertainty(b, u),
    }


@given(labels, labels, steps, masks, st.sampled_from((1.0, 0.5, 0.25, 2.0, 4.0, 0.0)))
@settings(max_examples=60, deadline=None)
def test_counts_give_the_figures_of_the_scaled_map(reference, predicted, numbers, brain, factor):
    u = numbers / 1000
    found = scaled_figures(score_method_case(reference, predicted, u, brain, PAPER).counts, factor)
    # the decimal number itself, which a threshold or the border of a bin may be
    scaled = np.minimum(1, np.round(factor * u, 12))
    expected = expected_figures(reference, predicted, scaled, brain)
    assert found == {name: pytest.approx(value, abs=1e-9, nan_ok=True) for name, value in expected.items()}


@given(labels, labels, steps, masks)
@settings(max_examples=20, deadline=None)
def test_single_precision_has_the_same_counts(reference, predicted, numbers, brain):
    double, single = (
        score_method_case(reference, predicted, (numbers / 1000).astype(kind), brain, PAPER) for kind in ("f8", "f4")
    )
    np.testing.assert_array_equal(double.counts["histograms"], single.counts["histograms"])
    assert double.counts["steps"] == single.counts["steps"]


@pytest.mark.parametrize("largest", [1.0, 0.1, 0.004, 3e-6])
def test_a_map_of_small_values_is_counted_as_finely(largest):
    reference, predicted, brain, q = case()
    u = q * largest * np.random.default_rng(1).random(q.shape)
    figures = scaled_figures(score_method_case(reference, predicted, u, brain, PAPER).counts, 1 / largest)
    expected = expected_figures(reference, predicted, u / largest, brain)
    for name in ("rmsd_reference", "rmsd_union", "mean_uncertainty"):
        assert figures[name] == pytest.approx(expected[name], abs=2e-4)
    # a voxel that is rounded over the border of a bin counts in the next
    assert figures["ece"] == pytest.approx(expected["ece"], abs=2e-3)


@given(st.floats(1e-6, 1.0), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_figures_that_a_factor_does_not_change(factor, seed):
    reference, predicted, brain, q = case(seed)
    u = np.random.default_rng(seed).random(q.shape)
    first = score_method_case(reference, predicted, u, brain, PAPER, q).figures
    second = score_method_case(reference, predicted, u * factor, brain, PAPER, q).figures
    for name in first.keys() - {"sum_ue", "sum_uu"}:
        assert first[name] == pytest.approx(second[name], abs=1e-9)
    assert second["sum_ue"] == pytest.approx(factor * first["sum_ue"])
    assert second["sum_uu"] == pytest.approx(factor**2 * first["sum_uu"])


def test_figures_are_those_of_the_single_functions():
    reference, predicted, brain, q = case()
    u = np.random.default_rng(3).random(q.shape)
    figures = score_method_case(reference, predicted, u, brain, PAPER, q).figures
    a, b = reference > 0, predicted > 0
    chance = np.where(b, 1 - q, q)
    for protocol in ("reference", "union"):
        mask = protocol_mask(a, b, protocol)
        assert figures[f"corr_failure_{protocol}"] == pytest.approx(score_map(u, a != b, mask)["corr"])
        assert figures[f"corr_oracle_{protocol}"] == pytest.approx(np.corrcoef(u[mask], chance[mask])[0, 1])
    near = protocol_mask(a, b, "union")
    assert figures["auprc_union"] == pytest.approx(average_precision_score((a != b)[near], u[near]))
    for name, mask in (("brain", brain), ("band", boundary_band(b))):
        found = error_detection(u, a != b, mask)
        assert figures[f"auroc_{name}"] == pytest.approx(found["auroc"])
        assert figures[f"auprc_{name}"] == pytest.approx(found["auprc"])
    for region, members in (("wt", (1, 2, 3)), ("tc", (1, 3)), ("et", (3,))):
        c, d = np.isin(reference, members), np.isin(predicted, members)
        assert figures[f"dice_{region}"] == pytest.approx(2 * (c & d).sum() / (c.sum() + d.sum()))
    certain = qu_brats(a, b, np.zeros(a.shape), brain)["qu_score"]
    assert figures["qu_score_always_certain"] == pytest.approx(certain)
    # the oracle's own map
    own = score_method_case(reference, predicted, chance, brain, PAPER, q).figures
    assert own["corr_oracle_union"] == pytest.approx(1)


def test_the_sums_give_the_least_squares_fit():
    reference, predicted, brain, _ = case()
    u = np.random.default_rng(4).random(reference.shape)
    figures = score_method_case(reference, predicted, u, brain, PAPER).figures
    a, b = reference > 0, predicted > 0
    mask = protocol_mask(a, b, "union")
    fit = np.linalg.lstsq(u[mask][:, None], (a != b)[mask].astype(float), rcond=None)[0][0]
    assert figures["sum_ue"] / figures["sum_uu"] == pytest.approx(fit)


def test_a_map_that_is_the_same_everywhere_has_a_correlation_of_0_and_one_without_errors_has_none():
    reference, predicted, brain, q = case()
    for value in (0.0, 0.3, 1.0):
        figures = score_method_case(reference, predicted, np.full(q.shape, value, np.float32), brain, PAPER, q).figures
        assert figures["corr_failure_union"] == figures["corr_oracle_union"] == 0
        assert figures["auroc_brain"] == pytest.approx(0.5)
    figures = score_method_case(reference, reference, q, brain, PAPER, q).figures
    assert math.isnan(figures["corr_failure_union"])
    assert math.isnan(figures["auroc_brain"])
    assert figures["corr_oracle_union"] > 0


def test_figures_without_their_voxels_are_unknown():
    reference, predicted, brain, q = case()
    figures = score_method_case(reference, predicted, q, brain, PAPER).figures
    assert math.isnan(figures["corr_oracle_union"])
    assert figures["corr_failure_union"] == figures["corr_failure_union"]
    empty, nothing = np.zeros_like(reference), np.zeros(brain.shape, bool)
    for found in (score_method_case(empty, empty, q, nothing, PAPER), score_method_case(empty, empty, q, brain, PAPER)):
        assert found.figures["dice_wt"] == 1
        assert found.figures["sum_ue"] == found.figures["sum_uu"] == 0
        scaled = scaled_figures(found.counts, 0.5)
        assert math.isnan(scaled["rmsd_union"])
        # where nothing is predicted, the most uncertain voxel of the whole volume
        assert scaled["mean_uncertainty"] == pytest.approx(q.max() / 2, abs=1e-3)
    assert math.isnan(scaled_figures(score_method_case(empty, empty, q, nothing, PAPER).counts, 1)["ace"])
    # missed altogether
    missed = score_method_case(reference, empty, q * 0, brain, PAPER, q)
    assert math.isnan(missed.figures["corr_failure_reference"])
    assert missed.figures["corr_failure_union"] == 0
    assert scaled_figures(missed.counts, 1)["rmsd_reference"] == pytest.approx(1)
    assert all(math.isnan(value) for value in scaled_figures(missed.counts, math.nan).values())


def test_counts_are_small_and_add_up():
    reference, predicted, brain, q = case()
    counts = score_method_case(reference, predicted, q, brain, PAPER).counts
    voxels = dict(zip(HISTOGRAMS, counts["histograms"].sum(1), strict=True))
    assert voxels["tp"] == ((reference > 0) & (predicted > 0)).sum()
    assert sum(voxels[f"{group}_brain"] for group in ("tp", "fp", "fn", "tn")) == brain.sum()
    union = protocol_mask(reference > 0, predicted > 0, "union")
    assert voxels["tp"] + voxels["fp"] + voxels["fn"] + voxels["tn_union"] == union.sum()
    assert counts["histograms"].nbytes < 40_000


def test_errors_are_those_of_the_main_region():
    """A missed resection cavity, which is in no tumour region, is no failure; its Dice is there all the same."""
    reference, predicted, brain, q = case()
    cavity = np.zeros_like(reference)
    cavity[:3, :3, :3] = POST.labels["RC"]
    known = score_method_case(reference, predicted, q, brain, PAPER, q)
    with_cavity = score_method_case(np.where(cavity, cavity, reference), predicted, q, brain, POST, q)
    assert with_cavity.figures == pytest.approx(known.figures | {"dice_rc": 0.0}, nan_ok=True)
    np.testing.assert_array_equal(with_cavity.counts["histograms"], known.counts["histograms"])
    one = score_method_case(reference > 0, predicted > 0, q, brain, PROSTATE, q)
    assert one.figures["dice_prostate"] == known.figures["dice_wt"]
    assert one.figures["corr_failure_union"] == known.figures["corr_failure_union"]
