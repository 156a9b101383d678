"""What must hold of the metrics for any masks, and small cases worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from performance.score import plain_lesions
from uncseg.evaluation.calibration import calibration_errors, reliability
from uncseg.evaluation.case_scores import score_case
from uncseg.evaluation.detection import boundary_band, error_detection
from uncseg.evaluation.lesions import lesionwise
from uncseg.evaluation.overlap import sensitivity, specificity
from uncseg.evaluation.qu_brats import qu_brats
from uncseg.evaluation.surface import SurfaceDistances
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tasks.fields import LesionRule
from uncseg.tasks.task import Task

SHAPE = (7, 6, 8)
masks = arrays(bool, SHAPE, elements=st.booleans(), fill=st.just(False))
spacings = st.tuples(*[st.sampled_from((0.5, 1.0, 2.5))] * 3)
orders = st.sampled_from(list(itertools.permutations(range(3))))
flips = st.tuples(*[st.booleans()] * 3)
rules = st.builds(LesionRule, dilations=st.integers(0, 4), smallest_mm3=st.sampled_from((0, 2, 50)))
GLI = LesionRule(dilations=3, smallest_mm3=50)


def turned(array, order, flip):
    return array.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flip)]


@given(masks, masks, spacings, orders, flips)
@settings(max_examples=60, deadline=None)
def test_hd95_of_any_masks(a, b, spacing, order, flip):
    value = SurfaceDistances(a, b, spacing).hd95_mm()
    assert value == pytest.approx(SurfaceDistances(b, a, spacing).hd95_mm())
    other = SurfaceDistances(turned(a, order, flip), turned(b, order, flip), [spacing[n] for n in order]).hd95_mm()
    assert value == pytest.approx(other)
    assert SurfaceDistances(a, a, spacing).hd95_mm() == 0
    if a.any() and b.any():
        assert 0 <= value <= np.linalg.norm(np.multiply(SHAPE, spacing))
    else:
        assert value == (374 if a.any() or b.any() else 0)


@given(masks, masks, spacings, st.integers(1, 3), st.sampled_from((0, 2, 50)))
@settings(max_examples=60, deadline=None)
def test_lesions_are_those_of_the_challenges_algorithm(reference, prediction, spacing, dilations, smallest):
    """Against the algorithm of the challenge's script, written plainly: by every rule, not that of gliomas alone."""
    rule = LesionRule(dilations=dilations, smallest_mm3=smallest)
    found = lesionwise(reference, prediction, spacing, rule)
    peer = plain_lesions(reference.astype(float), prediction.astype(float), spacing, rule)
    assert {name: found[name] for name in peer} == pytest.approx(peer)


@given(masks, masks, spacings, orders, flips, rules)
@settings(max_examples=60, deadline=None)
def test_lesions_of_any_masks(reference, prediction, spacing, order, flip, rule):
    found = lesionwise(reference, prediction, spacing, rule)
    turned_pair = (turned(mask, order, flip) for mask in (reference, prediction))
    other = lesionwise(*turned_pair, [spacing[n] for n in order], rule)
    assert other == {name: pytest.approx(value) for name, value in found.items()}
    assert 0 <= found["lesionwise_dice"] <= 1
    assert 0 <= found["lesionwise_hd95_mm"] <= 374
    assert found["num_tp"] + found["num_fn"] <= ndimage.label(reference, np.ones((3, 3, 3)))[1]
    assert found["num_fp"] <= ndimage.label(prediction, np.ones((3, 3, 3)))[1]
    if not reference.any():
        assert found["num_fp"] == ndimage.label(prediction, np.ones((3, 3, 3)))[1]


@given(masks, masks, orders, flips)
@settings(max_examples=40, deadline=None)
def test_ratios_of_any_masks(reference, prediction, order, flip):
    for figure in (sensitivity, specificity):
        value = figure(reference, prediction)
        assert 0 <= value <= 1
        assert value == figure(turned(reference, order, flip), turned(prediction, order, flip))
    if reference.any():
        # what is sensitivity to the tumour is specificity to the rest
        assert sensitivity(reference, prediction) == pytest.approx(specificity(~reference, ~prediction))


@given(
    masks,
    masks,
    masks,
    arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32)),
)
@settings(max_examples=40, deadline=None)
def test_uncertainty_figures_of_any_maps(reference, prediction, brain, u):
    row = qu_brats(reference, prediction, 100 * u.astype(float), brain)
    assert all(0 <= value <= 1 for value in row.values())
    certain = qu_brats(reference, prediction, np.zeros(SHAPE), brain)
    assert certain["qu_score"] == pytest.approx(row["qu_score_always_certain"])
    error = reference != prediction
    found = error_detection(u, error, brain)
    if error[brain].any() and not error[brain].all():
        assert found["auroc"] == pytest.approx(roc_auc_score(error[brain], u[brain]))
        assert found["auprc"] == pytest.approx(average_precision_score(error[brain], u[brain]))
        assert 0 <= found["fpr95"] <= 1
        # a perfect map finds all errors first
        assert error_detection(error.astype(float), error, brain) == {"auroc": 1, "auprc": 1, "fpr95": 0}
    else:
        assert all(math.isnan(value) for value in found.values())
    errors = calibration_errors(reliability(u, error, brain))
    if brain.any():
        assert 0 <= errors["ece"] <= 1
        assert 0 <= errors["ace"] <= 1
    else:
        assert math.isnan(errors["ece"])


@given(array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=4), st.data())
@settings(max_examples=30, deadline=None)
def test_masks_of_any_shape_and_masks_that_fill_it(shape, data):
    full = np.ones(shape, bool)
    some = data.draw(arrays(bool, shape))
    assert SurfaceDistances(full, full, (1, 1, 1)).hd95_mm() == 0
    assert lesionwise(full, some, (9, 9, 9), GLI)["num_fp"] == 0  # all within the lesion
    assert len(score_case(some.astype(np.uint8), full.astype(np.uint8), (1, 1, 1), paper_task())) == 3


def at(*voxels, shape=(20, 20, 20)):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_hd95_of_single_voxels():
    # two voxels' surfaces are 3 voxels of 2 mm apart along the first axis, corner by corner
    assert SurfaceDistances(at((2, 5, 5)), at((5, 5, 5)), (2, 1, 1)).hd95_mm() == pytest.approx(6)
    # at the border of the volume as well
    assert SurfaceDistances(at((0, 0, 0)), at((0, 0, 4)), (1, 1, 2.5)).hd95_mm() == pytest.approx(10)


def test_a_lesion_of_50_mm3_drops_out_with_what_matches_only_it():
    small, large = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    small[2:7, 2:7, 2:4] = True  # 50 voxels
    large[15:25, 15:25, 15:25] = True
    found = lesionwise(small | large, small | large, (1, 1, 1), GLI)
    assert (found["num_tp"], found["num_fp"], found["num_fn"], found["lesionwise_dice"]) == (1, 0, 0, 1)
    # a hair larger in mm, and it counts
    assert lesionwise(small | large, small | large, (1, 1, 1.01), GLI)["num_tp"] == 2
    # a false positive counts, whatever its size
    found = lesionwise(large, large | at((2, 2, 2), shape=(30, 30, 30)), (1, 1, 1), GLI)
    assert (found["num_tp"], found["num_fp"]) == (1, 1)
    assert found["lesionwise_dice"] == pytest.approx(0.5)
    assert found["lesionwise_hd95_mm"] == pytest.approx(374 / 2)


def test_lesions_merge_over_a_gap_that_three_dilations_close_and_not_over_a_wider_one():
    for gap, lesions in ((6, 1), (7, 2)):
        reference = np.zeros((10, 10, 40), bool)
        reference[2:8, 2:8, 5:10] = reference[2:8, 2:8, 10 + gap : 15 + gap] = True
        found = lesionwise(reference, reference, (1, 1, 1), GLI)
        assert (found["num_tp"], found["lesionwise_dice"]) == (lesions, 1)


def test_the_task_says_which_lesions_count_and_which_are_one():
    """The challenge's figures of one pair of masks, worked out by hand."""
    # two lesions of 100 and 70 mm³, 4 voxels apart, of which the larger is found, and a third of 3 mm³ that is found
    reference, prediction = np.zeros((2, 40, 40, 40), np.uint8)
    reference[5:10, 5:10, 5:9] = prediction[5:10, 5:10, 5:9] = 3
    reference[14:16, 5:10, 5:12] = 3
    reference[30, 30, 30:33] = prediction[30, 30, 30:33] = 3
    expected = {
        # 3 dilations close the gap: one lesion, 2 · 100 / (170 + 100); that of 3 mm³ does not count
        "gli-2023": (20 / 27, 1, 0),
        # 1 dilation does not: (1 + 0) / 2
        "men": (1 / 2, 1, 1),
        # that of 3 mm³ counts: (1 + 0 + 1) / 3
        "met": (2 / 3, 2, 1),
    }
    for name, (dice, found, missed) in expected.items():
        for row in score_case(reference, prediction, (1, 1, 1), built_in(name)):
            assert row["lesionwise_dice"] == pytest.approx(dice), (name, row["region"])
            assert (row["num_tp"], row["num_fp"], row["num_fn"]) == (found, 0, missed), (name, row["region"])


@pytest.mark.parametrize(("dilations", "gap"), [(0, 0), (1, 2), (2, 4), (5, 10)])
def test_a_rule_closes_gaps_of_twice_its_dilations(dilations, gap):
    for between, lesions in ((gap, 1), (gap + 1, 2)):
        mask = np.zeros((10, 10, 40), bool)
        mask[2:8, 2:8, 5:10] = mask[2:8, 2:8, 10 + between : 15 + between] = True
        rule = LesionRule(dilations=dilations, smallest_mm3=0)
        assert lesionwise(mask, mask, (1, 1, 1), rule)["num_tp"] == lesions


def test_a_region_apart_is_scored_for_itself():
    """A resection cavity in place of tumour: wrong in both regions, and a failure of the whole tumour alone."""
    reference, prediction = np.zeros((2, 20, 20, 20), np.uint8)
    reference[2:8, 2:8, 2:8], prediction[2:8, 2:8, 2:8] = 3, 3
    reference[8:12, 2:8, 2:8] = 4
    prediction[8:10, 2:8, 2:8], prediction[10:12, 2:8, 2:8] = 4, 2
    rows = {row["region"]: row for row in score_case(reference, prediction, (1, 1, 1), built_in("gli-2024"))}
    assert list(rows) == ["WT", "TC", "ET", "RC"]
    # slabs of 36 voxels: 6 of tumour and 4 of cavity, 2 of which are called oedema
    assert rows["WT"]["dice"] == pytest.approx(2 * 6 / (6 + 8))
    assert rows["ET"]["dice"] == 1
    assert rows["RC"]["dice"] == pytest.approx(2 * 2 / (4 + 2))
    assert rows["RC"]["failure_rate"] == pytest.approx(2 / 4)
    assert rows["WT"]["failure_rate"] == 0


def test_a_task_of_one_label():
    task = Task.model_validate({"modalities": ["ct"], "labels": {"liver": 1}})
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    (row,) = score_case(mask, np.roll(mask, 1, 0), (1, 1, 1), task, {"liver": np.zeros(mask.shape, np.float32)})
    assert (row["region"], row["dice"]) == ("liver", pytest.approx(0.75))
    assert row["failure_rate"] == pytest.approx(0.25)
    assert "qu_score" in row


def test_one_component_may_match_two_lesions():
    reference = np.zeros((10, 10, 40), bool)
    reference[2:8, 2:8, 4:10] = reference[2:8, 2:8, 30:36] = True
    prediction = np.zeros_like(reference)
    prediction[2:8, 2:8, 4:36] = True
    found = lesionwise(reference, prediction, (1, 1, 1), GLI)
    assert (found["num_tp"], found["num_fp"], found["num_fn"]) == (2, 0, 0)
    assert found["lesionwise_dice"] == pytest.approx(2 * 6 / (6 + 32))


def test_empty_masks():
    empty, one = at(), at((3, 3, 3))
    for reference, prediction, dice, hd95, counts in (
        (empty, empty, 1, 0, (0, 0, 0)),
        (empty, one, 0, 374, (0, 1, 0)),
        (one, empty, 1, 0, (0, 0, 0)),  # 1 mm³ drops out
    ):
        found = lesionwise(reference, prediction, (1, 1, 1), GLI)
        assert (found["lesionwise_dice"], found["lesionwise_hd95_mm"]) == (dice, hd95)
        assert (found["num_tp"], found["num_fp"], found["num_fn"]) == counts


def test_the_band_is_two_voxels_to_either_side():
    predicted = np.zeros((20, 20, 20), bool)
    predicted[6:14, 6:14, 6:14] = True
    band = boundary_band(predicted)
    assert band[:, 10, 10].nonzero()[0].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    assert not boundary_band(np.zeros((5, 5, 5), bool)).any()


def test_calibration_by_hand():
    u = np.array([0.0, 0.02, 0.51, 0.52, 1.0]).reshape(1, 1, 5)
    wrong = np.array([False, True, True, False, True]).reshape(1, 1, 5)
    errors = calibration_errors(reliability(u, wrong, np.ones_like(wrong)))
    gaps = (abs(0.01 - 0.5), abs(0.515 - 0.5), 0.0)  # bins of 2, 2 and 1 voxels
    assert errors["ace"] == pytest.approx(np.mean(gaps))
    assert errors["ece"] == pytest.approx((2 * gaps[0] + 2 * gaps[1]) / 5)


def test_fpr95_by_hand():
    wrong = np.array([True] * 20 + [False] * 10).reshape(1, 1, 30)
    # 19 of 20 wrong voxels are found at 0.5, with 3 right ones; the last one only at 0
    u = np.array([0.9] * 18 + [0.5, 0.0] + [0.7] * 3 + [0.0] * 7).reshape(1, 1, 30)
    assert error_detection(u, wrong, np.ones_like(wrong))["fpr95"] == pytest.approx(0.3)
