"""Trees and perceptrons: the features of a voxel, in closed forms, and what is learnt beyond calibrated p."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from uncseg.config.failures import Failures
from uncseg.method.failures import failure_model, voxel_map
from uncseg.method.failures.calibration import Calibration
from uncseg.method.failures.failure_model import FailureModel, Grid
from uncseg.method.failures.failure_trees import fit_trees
from uncseg.method.failures.perceptron import fit_perceptron
from uncseg.method.failures.voxel_features import image_features, of_images, region_features, without_images
from uncseg.method.failures.voxel_map import EVERYTHING, Asked

CALIBRATIONS = (Calibration(-1.0, -0.5, 0.8, 0.2), Calibration(0.3, -0.1, 0.0, 0.0))
SHAPE = (20, 18, 17)
CHOSEN = (slice(5, 15), slice(5, 13), slice(5, 12))


@pytest.fixture
def case():
    """Images, logits, decisions, and what is wrong: chosen voxels where the first image is bright."""
    random = np.random.default_rng(0)
    images = random.normal(0, 1, (2, *SHAPE)).astype(np.float32)
    images[:, :2] = 0  # beyond the head
    decisions = np.zeros((2, *SHAPE), bool)
    decisions[(slice(None), *CHOSEN)] = True
    logits = np.where(decisions, 1.5, -1.5).astype(np.float32)
    return images, logits, decisions, decisions & (images[:1] > 1)


@pytest.fixture(params=["trees", "perceptron"])
def learnt(request):
    """Return a model that has learnt region 0 from all of the case's voxels, and region 1 from nothing."""

    def learn(case, sees_images=True):
        images, logits, decisions, wrong = case
        features = torch.cat([region_features(logits, decisions, 0), image_features(images)]).flatten(1)
        features = np.ascontiguousarray(features.T.numpy())
        known = features if sees_images else without_images(features, len(images))
        voxels = [values[0].ravel() for values in (logits, decisions, wrong)]
        grid = Grid(2, SHAPE, (1.0, 1.0, 1.0))
        if request.param == "trees":
            text = fit_trees(CALIBRATIONS[0], known, *voxels, 60, seed=0)
            return FailureModel(CALIBRATIONS, Failures(trees=60, sees_images=sees_images), grid, trees=(text, ""))
        fitted = fit_perceptron(CALIBRATIONS[0], known, *voxels, 16, seed=0)
        settings = Failures(perceptron=16, sees_images=sees_images)
        return FailureModel(CALIBRATIONS, settings, grid, perceptrons=(fitted, None))

    return learn


def test_a_voxel_is_described_by_its_margin_and_by_what_is_around_it(case):
    _, logits, decisions, _ = case
    logits = logits + np.array([0, 0.25]).reshape(2, 1, 1, 1)
    found = region_features(logits, decisions, 0).numpy()
    inside, outside = found[:, 9, 9, 8], found[:, 5, 5, 0]
    assert inside[:4].tolist() == [1.5, 1, 1.5, 1.75]
    assert outside[:4].tolist() == [1.5, 0, 0, -1.25]
    # two features for each of three scales: logit and decision blurred, which go together here
    for logit, decision in found[4:10].reshape(3, 2, *SHAPE):
        np.testing.assert_allclose(logit, 3 * decision - 1.5, atol=1e-5)
    assert found[5, 9, 9, 8] > found[7, 9, 9, 8] > found[9, 9, 9, 8], "the more blurred, the less inside"
    assert inside[10] == 4, "(9, 9, 8) is the fourth voxel from the faces at 5 and at 11"
    assert outside[10] == -5, "(5, 5, 0) is five steps before (5, 5, 5)"
    assert inside[11] == pytest.approx(np.log(1 + 10 * 8 * 7))
    assert outside[11] == 0


@pytest.mark.parametrize("shape", [(50, 8, 61), (3, 60, 70)])
def test_blurs_distances_and_sizes_are_those_of_the_whole_grid(shape):
    """By SciPy on the whole grid: from matrices, and near the region alone, nothing else may come out."""
    random = np.random.default_rng(0)
    logits, decisions = random.normal(0, 3, (1, *shape)), np.zeros((1, *shape), bool)
    decisions[0, :2, 3:5, 1:9] = decisions[0, 2:, 7, 30:33] = True
    chosen, image = decisions[0], random.normal(0, 1, shape).astype(np.float32)
    found = region_features(logits, decisions, 0).numpy()
    for number, scale in enumerate((1, 2, 4)):
        for values, blurred in zip((logits[0], chosen.astype(float)), found[3 + 2 * number :], strict=False):
            np.testing.assert_allclose(blurred, ndimage.gaussian_filter(values, scale), atol=1e-5)
    for scale, blurred in zip((1, 3), image_features(image[None]).numpy()[1:], strict=True):
        np.testing.assert_allclose(blurred, ndimage.gaussian_filter(image, scale), atol=1e-5)
    distance = ndimage.distance_transform_edt(chosen) - ndimage.distance_transform_edt(~chosen)
    np.testing.assert_allclose(found[9], distance.clip(-20, 20), atol=1e-5)
    parts, number = ndimage.label(chosen)
    sizes = sum(np.where(parts == part, (parts == part).sum(), 0) for part in range(1, number + 1))
    np.testing.assert_allclose(found[10], np.log1p(ndimage.maximum_filter(sizes, 5)), atol=1e-5)
    assert number > 1
    assert distance.min() < -20


@pytest.mark.parametrize("chosen", [False, True])
def test_a_region_that_is_nowhere_or_everywhere_has_finite_features(chosen):
    decisions = np.full((1, 6, 6, 6), chosen)
    found = region_features(np.zeros((1, 6, 6, 6)), decisions, 0).numpy()
    assert np.isfinite(found).all()
    assert set(found[9].ravel()) == {20.0 if chosen else -20.0}


def test_features_of_images_are_the_last_ones(case):
    images = case[0]
    found = image_features(images).numpy()
    assert len(found) == of_images(2) == 6
    np.testing.assert_array_equal(found[[0, 3]], images)
    assert found[2].std() < found[1].std() < found[0].std()
    both = np.concatenate([np.full((4, *SHAPE), 7.0), found]).reshape(10, -1).T
    assert (without_images(both, 2) == 7).all()


def test_they_learn_what_an_image_tells_of_failures(case, learnt):
    images, logits, decisions, wrong = case
    inside = decisions[0]
    found = learnt(case).failures(images, logits, decisions)[0][inside]
    blind = learnt(case, sees_images=False).failures(images, logits, decisions)[0][inside]
    failing = wrong[0][inside]
    assert found[failing].mean() > 5 * found[~failing].mean()
    assert blind[failing].mean() < 1.5 * blind[~failing].mean()


def test_where_they_have_learnt_nothing_calibrated_p_stands(case, learnt):
    images, logits, decisions, _ = case
    model = learnt(case)
    found, expected = model.failures(images, logits, decisions), model.calibrated(logits, decisions)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)  # no failure was seen
    np.testing.assert_allclose(found[0, :2], expected[0, :2], atol=1e-6)  # beyond the head
    assert np.abs(found[0] - expected[0]).max() > 0.1


def test_few_failures_are_not_learnt_from():
    features, few = np.random.default_rng(0).random((500, 3)), np.arange(500) < 19
    told = np.ones(500, np.float32), np.ones(500, bool)
    assert fit_trees(CALIBRATIONS[0], features, *told, few, 10, 0) == ""
    assert fit_trees(CALIBRATIONS[0], features, *told, ~few, 10, 0) == ""
    few_features = features.astype(np.float32)
    assert fit_perceptron(CALIBRATIONS[0], few_features, *told, few, 10, 0) is None
    assert fit_perceptron(CALIBRATIONS[0], few_features, *told, ~few, 10, 0) is None


def test_a_perceptron_is_two_layers_of_standardised_features_against_the_decision():
    """By NumPy, from the weights that it was fitted to; features that were never seen count as five deviations."""
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (5000, 4)).astype(np.float32)
    chosen, failing = random.random(5000) < 0.5, random.random(5000) < 0.3
    fitted = fit_perceptron(CALIBRATIONS[0], features, np.zeros(5000, np.float32), chosen, failing, 8, seed=0)
    weights = {name: values.double().numpy() for name, values in fitted.state_dict().items()}
    np.testing.assert_allclose(weights["mean"], features.mean(0), rtol=1e-4)
    features[:5] = 1000
    x = ((features - weights["mean"]) / weights["sd"]).clip(-5, 5)
    for layer in (0, 2):
        x = x @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
        x = np.where(x > 0, x, 0.01 * x)
    evidence = (x @ weights["layers.4.weight"].T + weights["layers.4.bias"])[:, 0]
    assert np.abs(evidence).max() > 0.01
    added = fitted.added(torch.from_numpy(features), torch.from_numpy(chosen)).numpy()
    np.testing.assert_allclose(added, np.where(chosen, -evidence, evidence), atol=1e-4)


def test_they_are_read_as_they_were_written_and_fitted_alike(case, learnt, tmp_path):
    own, again = learnt(case), learnt(case)
    own.save(tmp_path / "failures.pth")
    read = FailureModel.load(tmp_path / "failures.pth")
    images, logits, decisions, _ = case
    np.testing.assert_array_equal(again.failures(images, logits, decisions), own.failures(images, logits, decisions))
    np.testing.assert_array_equal(read.failures(images, logits, decisions), own.failures(images, logits, decisions))


def test_in_however_many_parts_the_map_is_the_same(case, learnt, monkeypatch):
    images, logits, decisions, _ = case
    model = learnt(case)
    whole = model.failures(images, logits, decisions)
    monkeypatch.setattr(voxel_map, "VOXELS_TOGETHER", 700)
    np.testing.assert_allclose(model.failures(images, logits, decisions), whole, rtol=1e-5)


def test_where_a_gpu_has_too_little_memory_the_host_computes(case, learnt, monkeypatch):
    images, logits, decisions, _ = case
    model = learnt(case)
    expected, asked = model.failures(images, logits, decisions), []

    def scarce(*arguments):
        asked.append(arguments[-1])
        if len(asked) == 1:
            raise torch.cuda.OutOfMemoryError
        return voxel_map.voxel_map(*arguments)

    monkeypatch.setattr(failure_model, "voxel_map", scarce)
    monkeypatch.setattr(failure_model, "fitting_device", lambda: torch.device("meta"))
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, _device: module)
    np.testing.assert_array_equal(model.failures(images, logits, decisions), expected)
    assert [device.type for device in asked] == ["meta", "cpu"]


def test_what_is_not_asked_for_is_left_at_calibrated_p(case, learnt):
    images, logits, decisions, _ = case
    model = learnt(case)
    voxels = np.random.default_rng(1).random(SHAPE) < 0.3
    whole, part = (model.failures(images, logits, decisions, asked=a) for a in (EVERYTHING, Asked(0, voxels)))
    calibrated = model.calibrated(logits, decisions)
    np.testing.assert_allclose(part[0][voxels], whole[0][voxels], rtol=1e-5)
    np.testing.assert_allclose(part[0][~voxels], calibrated[0][~voxels], rtol=1e-5)
    assert np.abs(whole[0] - calibrated[0])[~voxels].max() > 0.1
    other = model.failures(images, logits, decisions, asked=Asked(1))
    np.testing.assert_allclose(other[0], calibrated[0], rtol=1e-5)
