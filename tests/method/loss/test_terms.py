"""The loss terms against NumPy, and finite where nothing can be compared."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from uncseg.method.loss.terms import (
    Comparison,
    dilate,
    mean_rmsd,
    one_minus_mean_corr,
    per_sample_scores,
    protocol_masks,
    squared_difference,
)
from uncseg.method.settings import warmup_factor


def random_batch(seed=0, shape=(3, 1, 6, 7, 8)):
    random = np.random.default_rng(seed)
    return random.random(shape), random.random(shape), random.random(shape) < 0.6


def compare(u, e, m):
    return Comparison.within(*(torch.from_numpy(a) for a in (m, u, e)))


def test_scores_agree_with_numpy_over_the_mask():
    u, e, m = random_batch()
    scores = per_sample_scores(*(torch.from_numpy(a) for a in (u, e, m)))
    for b in range(3):
        inside_u, inside_e = u[b][m[b]], e[b][m[b]]
        assert scores["rmsd"][b].item() == pytest.approx(np.sqrt(np.mean((inside_u - inside_e) ** 2)), abs=1e-5)
        assert scores["corr"][b].item() == pytest.approx(np.corrcoef(inside_u, inside_e)[0, 1], abs=1e-4)
    assert scores["rmsd_valid"].all()
    assert scores["corr_valid"].all()


def test_unc_averages_over_all_voxels_of_the_patch():
    u, e, m = random_batch(1)
    assert squared_difference(compare(u, e, m)).item() == pytest.approx(np.mean((u * m - e * m) ** 2), abs=1e-6)


def test_small_masks_and_constant_maps_do_not_count():
    u, e, m = random_batch(2)
    m[0] = False
    m[0].flat[:49] = True  # one voxel short of a sample
    u[1] = 0.3  # no spread
    scores = per_sample_scores(*(torch.from_numpy(a) for a in (u, e, m)))
    assert scores["rmsd_valid"].tolist() == [False, True, True]
    assert scores["corr_valid"].tolist() == [False, False, True]
    expected = 1 - np.corrcoef(u[2][m[2]], e[2][m[2]])[0, 1]
    assert one_minus_mean_corr(compare(u, e, m)).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("case", ["empty mask", "constant error", "both constant", "perfect"])
def test_terms_and_gradients_are_finite_where_nothing_can_be_compared(case):
    u, e, m = (torch.from_numpy(np.asarray(a)).float() for a in random_batch(3))
    if case == "empty mask":
        m = torch.zeros_like(m)
    if case in ("constant error", "both constant"):
        e = torch.full_like(e, 0.2)
    if case == "both constant":
        u = torch.full_like(u, 0.2)
    if case == "perfect":
        u = e.clone()
    u.requires_grad_()
    pair = Comparison.within(m, u, e)
    total = squared_difference(pair) + mean_rmsd(pair) + one_minus_mean_corr(pair)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(u.grad).all()
    if case == "empty mask":
        assert total.item() == 0
        assert u.grad.abs().sum() == 0


@pytest.mark.parametrize("shape", [(12, 13, 14), (20, 24)], ids=["3d", "2d"])
def test_dilation_is_the_smallest_full_element_applied_twice(shape):
    masks = np.random.default_rng(0).random((3, 1, *shape)) < 0.01
    element = np.ones([3] * len(shape))
    expected = np.stack([ndimage.binary_dilation(mask[0], element, iterations=2) for mask in masks])
    np.testing.assert_array_equal(dilate(torch.from_numpy(masks))[:, 0].numpy(), expected)


def test_union_mask_holds_false_positives_and_reference_does_not():
    reference, predicted = torch.zeros((2, 1, 1, 16, 16, 16), dtype=torch.bool)
    reference[..., 4, 4, 4] = True
    predicted[..., 12, 12, 12] = True
    masks = protocol_masks(reference, predicted)
    assert torch.equal(masks["reference"], reference)
    assert masks["union"].sum() == 2 * 5**3
    assert masks["union"][..., 12, 12, 12].all()


def test_warmup_is_linear():
    assert [warmup_factor(epoch, 4) for epoch in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert warmup_factor(0, 0) == 1
