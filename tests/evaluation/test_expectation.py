"""Expectations from a map alone, against a simulation of what the map says."""

import numpy as np
import pytest

from uncseg.evaluation.expectation import around_prediction, describe, expected_dice, review_reason
from uncseg.evaluation.overlap import dice
from uncseg.tasks.built_in_tasks import paper_task


def cube(size=24):
    labels = np.zeros((size,) * 3, np.uint8)
    labels[6:18, 6:18, 6:18] = 2
    labels[9:15, 9:15, 9:15] = 1
    labels[11:13, 11:13, 11:13] = 3
    return labels


def test_expected_dice_is_the_mean_over_references_that_the_map_describes():
    random = np.random.default_rng(0)
    predicted = cube() > 0
    u = random.random(predicted.shape) ** 3 * around_prediction(np.ones(predicted.shape), predicted)
    # a voxel is wrong with probability u: references drawn so
    drawn = [dice(predicted ^ (random.random(u.shape) < u), predicted) for _ in range(200)]
    assert expected_dice(predicted, u) == pytest.approx(np.mean(drawn), abs=0.002)


def test_ends_of_the_range():
    predicted = cube() > 0
    assert expected_dice(predicted, np.zeros(predicted.shape)) == 1
    assert expected_dice(predicted, np.ones(predicted.shape)) == 0
    nothing = np.zeros(predicted.shape, bool)
    assert expected_dice(nothing, np.zeros(predicted.shape)) == 1


def test_description():
    labels, spacing = cube(), (1.0, 1.0, 2.5)
    u = np.where(labels > 0, 0.25, 0.0).astype(np.float32)
    found = describe(labels, u, spacing, review_below=0.8, task=paper_task())
    assert found["volume_wt_ml"] == pytest.approx(12**3 * 2.5 / 1000)
    assert found["volume_tc_ml"] == pytest.approx(6**3 * 2.5 / 1000)
    assert found["volume_et_ml"] == pytest.approx(2**3 * 2.5 / 1000)
    assert found["expected_wrong_voxels"] == pytest.approx(12**3 / 4)
    assert found["total_uncertainty_ml"] == pytest.approx(12**3 / 4 * 2.5 / 1000)
    assert found["mean_uncertainty"] == pytest.approx(0.25 * 12**3 / 16**3)
    assert found["expected_dice_wt"] == pytest.approx(2 * 0.75 / (2 * 0.75 + 0.25))
    assert found["review"] is False
    assert found["review_reason"] is None


def test_reasons():
    tumour = cube() > 0
    assert "0.700" in review_reason(tumour, 0.7, 0.8, "WT")
    assert review_reason(tumour, None, 0.8, "WT") is None
    assert review_reason(np.zeros_like(tumour), 1.0, 0.8, "WT") == "no WT found"
    assert "expected_dice_wt" not in describe(cube(), None, (1, 1, 1), 0.8, paper_task())
    # neither an unknown expectation nor an unknown limit says that a case is fine
    assert "not a number" in review_reason(tumour, np.nan, 0.8, "WT")
    assert review_reason(tumour, 0.9, np.nan, "WT") is not None
    u = np.where(tumour, np.nan, 0).astype(np.float32)
    assert describe(cube(), u, (1, 1, 1), 0.8, paper_task())["review"] is True


def test_where_nothing_is_found_the_map_stays_whole():
    u = np.zeros((8, 8, 8), np.float32)
    u[1, 2, 3], u[4, 4, 4] = 0.25, 0.75
    nothing = np.zeros(u.shape, np.uint8)
    np.testing.assert_array_equal(around_prediction(u, nothing > 0), u)
    found = describe(nothing, u, (1, 1, 1), 0.8, paper_task())
    assert found["mean_uncertainty"] == 0.75
    assert found["expected_dice_wt"] is None
    assert found["review_reason"] == "no WT found"
