"""Scores of maps against numpy and scipy on the masked voxels, and the rules for what is left out."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from uncseg.evaluation.uncertainty import pearson, protocol_mask, rmsd, score_map
from uncseg.method.loss.terms import per_sample_scores, protocol_masks

seeds = st.integers(0, 10_000)


def brute_union(reference, predicted, reach=2):
    """Every voxel whose cube of 5 voxels a side holds one of either mask."""
    both, found = reference | predicted, np.zeros(reference.shape, bool)
    for centre in itertools.product(*map(range, both.shape)):
        found[centre] = both[tuple(slice(max(0, c - reach), c + reach + 1) for c in centre)].any()
    return found


@settings(max_examples=30, deadline=None)
@given(seeds)
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


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_whole_weights_count_like_repeated_voxels(seed):
    random = np.random.default_rng(seed)
    u, e = random.random((2, 5, 6, 7))
    weights = random.integers(0, 4, u.shape)
    repeated_u, repeated_e = (np.repeat(a.ravel(), weights.ravel()) for a in (u, e))
    assert pearson(u, e, weights) == pytest.approx(np.corrcoef(repeated_u, repeated_e)[0, 1], abs=1e-9)
    mean_square = np.average((u - e) ** 2, weights=weights)
    assert rmsd(u, e, weights) == pytest.approx(math.sqrt(mean_square), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.01, 0.5), st.floats(0, 0.5))
def test_what_scores_do_not_depend_on(seed, scale, shift):
    random = np.random.default_rng(seed)
    u, e = random.random((2, 6, 6, 6))
    mask = random.random(u.shape) < 0.6
    corr = pearson(u, e, mask)
    assert -1 <= corr <= 1
    assert pearson(scale * u + shift, e, mask) == pytest.approx(corr, abs=1e-9)
    assert pearson(1 - u, e, mask) == pytest.approx(-corr, abs=1e-9)
    assert pearson(e, u, mask) == pytest.approx(corr, abs=1e-12)
    elsewhere = np.where(mask, u, np.nan)
    assert score_map(elsewhere, e, mask) == score_map(u, e, mask)


def test_closed_forms():
    e = np.zeros((4, 5, 5), bool)
    e[:2] = True
    everywhere = np.ones(e.shape, bool)
    assert score_map(e.astype(np.float32), e, everywhere) == pytest.approx({"rmsd": 0, "corr": 1})
    assert score_map(np.where(e, 0.75, 0.25), e, everywhere)["rmsd"] == pytest.approx(0.25, abs=1e-8)
    # two values each, 50 voxels of failure in 100, u right on 40 of either half: phi = (40·40 − 10·10)/50²
    u = e.copy()
    u[0].flat[:10], u[2].flat[:10] = False, True
    assert pearson(u, e, everywhere) == pytest.approx(0.6, abs=1e-12)


def test_what_is_left_out():
    u, e = np.random.default_rng(0).random((2, 6, 6, 6))
    mask = np.zeros(u.shape, bool)
    mask.flat[:49] = True
    assert math.isnan(score_map(u, e, mask)["rmsd"])
    assert math.isnan(score_map(u, e, mask)["corr"])
    mask.flat[49] = True
    assert not any(map(math.isnan, score_map(u, e, mask).values()))
    constant = score_map(np.full_like(u, 0.2), e, mask)
    assert constant["corr"] == 0
    assert math.isnan(score_map(u, np.full_like(e, 0.2), mask)["corr"])
    assert constant["rmsd"] == pytest.approx(np.sqrt(((0.2 - e.flat[:50]) ** 2).mean()), abs=1e-6)
    assert math.isnan(score_map(u, np.zeros(e.shape, bool), mask)["corr"])


@pytest.mark.parametrize(("sd", "valid"), [(0.9e-4, False), (1.1e-4, True)])
def test_the_smallest_spread_that_counts(sd, valid):
    e = np.arange(216).reshape(6, 6, 6) % 2
    everywhere = np.ones(e.shape, bool)
    assert (pearson(0.5 + 2 * sd * e, e, everywhere) > 0.99) is valid
    assert math.isnan(pearson(e, 0.5 + 2 * sd * e, everywhere)) is not valid


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0, 0.02))
def test_union_is_every_voxel_within_two_of_either_mask_in_both_codes(seed, share):
    random = np.random.default_rng(seed)
    reference, predicted = random.random((2, 9, 10, 11)) < share
    expected = brute_union(reference, predicted)
    np.testing.assert_array_equal(protocol_mask(reference, predicted, "union"), expected)
    tensors = protocol_masks(*(torch.from_numpy(m)[None, None] for m in (reference, predicted)))
    np.testing.assert_array_equal(tensors["union"][0, 0].numpy(), expected)


def test_protocol_masks():
    reference, predicted = np.zeros((2, 9, 9, 9), bool)
    reference[0, 0, 0] = predicted[4, 4, 4] = True
    np.testing.assert_array_equal(protocol_mask(reference, predicted, "reference"), reference)
    union = protocol_mask(reference, predicted, "union")
    assert union.dtype == bool
    assert union.sum() == 3**3 + 5**3 - 1  # the corner's cube is cut by two faces; one voxel is in both cubes
    with pytest.raises(ValueError, match="reference or union"):
        protocol_mask(reference, predicted, "paper")
