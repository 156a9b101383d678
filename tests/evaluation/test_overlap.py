"""Dice against the challenge's own figures."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncseg.evaluation.overlap import dice, region_mask, volume_ml
from uncseg.tasks.built_in_tasks import paper_task

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "brats_metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize("region", ["WT", "TC", "ET"])
def test_dice_is_the_challenges(name, region):
    with np.load(GOLDEN / f"{name}.npz") as case:
        found = dice(
            region_mask(case["reference"], region, paper_task()), region_mask(case["prediction"], region, paper_task())
        )
    assert found == pytest.approx(EXPECTED[name][region]["dice"], abs=1e-6)


def test_empty_masks():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert (dice(empty, empty), dice(empty, full), dice(full, empty), dice(full, full)) == (1, 0, 0, 1)


@given(st.sets(st.integers(0, 26)), st.sets(st.integers(0, 26)))
def test_dice_is_that_of_sets(first, second):
    a, b = np.zeros((2, 3, 3, 3), bool)
    a.flat[list(first)], b.flat[list(second)] = True, True
    expected = 2 * len(first & second) / (len(first) + len(second)) if first or second else 1
    assert dice(a, b) == dice(b, a) == pytest.approx(expected)


def test_regions():
    labels = np.array([0, 1, 2, 3], np.uint8)
    assert region_mask(labels, "WT", paper_task()).tolist() == [False, True, True, True]
    assert region_mask(labels, "TC", paper_task()).tolist() == [False, True, False, True]
    assert region_mask(labels, "ET", paper_task()).tolist() == [False, False, False, True]


def test_volume():
    assert volume_ml(np.ones((10, 10, 10), bool), (1, 1, 2.5)) == pytest.approx(2.5)
