"""Scores of maps against numpy on the masked voxels, and the rules for what is left out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from uncseg.evaluation.uncertainty import failure_map, protocol_mask, score_map
from uncseg.method.loss import per_sample_scores, protocol_masks


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_agree_with_scipy_and_with_the_training_code(seed):
    random = np.random.default_rng(seed)
    u, e = random.random((2, 7, 8, 9))
    mask = random.random(u.shape) < 0.5
    found = score_map(u, e, mask)
    assert found["corr"] == pytest.approx(stats.pearsonr(u[mask], e[mask]).statistic, abs=1e-9)
    assert found["rmsd"] == pytest.approx(np.linalg.norm(u[mask] - e[mask]) / np.sqrt(mask.sum()), abs=1e-6)
    trained = per_sample_scores(*(torch.from_numpy(a)[None, None] for a in (u, e, mask)))
    assert trained["corr"].item() == pytest.approx(found["corr"], abs=1e-4)
    assert trained["rmsd"].item() == pytest.approx(found["rmsd"], abs=1e-4)


def test_what_is_left_out():
    u, e = np.random.default_rng(0).random((2, 6, 6, 6))
    mask = np.zeros(u.shape, bool)
    mask.flat[:49] = True
    assert all(math.isnan(value) for value in score_map(u, e, mask).values())
    mask.flat[:60] = True
    constant = score_map(np.full_like(u, 0.2), e, mask)
    assert math.isnan(constant["corr"])
    assert constant["rmsd"] == pytest.approx(np.sqrt(((0.2 - e.flat[:60]) ** 2).mean()), abs=1e-6)


def test_union_is_the_26_neighbour_dilation_applied_twice_in_both_codes():
    random = np.random.default_rng(1)
    reference, predicted = random.random((2, 15, 16, 17)) < 0.003
    expected = ndimage.binary_dilation(reference | predicted, np.ones((3, 3, 3)), iterations=2)
    np.testing.assert_array_equal(protocol_mask(reference, predicted, "union"), expected)
    tensors = protocol_masks(*(torch.from_numpy(m)[None, None] for m in (reference, predicted)))
    np.testing.assert_array_equal(tensors["union"][0, 0].numpy(), expected)
    np.testing.assert_array_equal(protocol_mask(reference, predicted, "reference"), reference)
    with pytest.raises(ValueError, match="reference or union"):
        protocol_mask(reference, predicted, "paper")


def test_failure():
    reference, predicted = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    assert failure_map(reference, predicted).tolist() == [False, True, True, False]
