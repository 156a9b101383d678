"""The failure network: it starts as calibrated p, learns what images tell of failures, and goes on after a stop."""

import numpy as np
import pytest
import torch

from uncseg.config.failures import Failures
from uncseg.errors import ProblemsFound
from uncseg.method.failures.calibration import Calibration
from uncseg.method.failures.failure_cases import FailureCase, draw_batch
from uncseg.method.failures.failure_map import failure_map
from uncseg.method.failures.failure_model import FailureModel, Grid
from uncseg.method.failures.failure_training import FailureTraining, failure_loss

CALIBRATIONS = (Calibration(-1.0, -0.5, 0.8, 0.2), Calibration(0.3, -0.1, 0.0, 0.0))
GRID = Grid(1, (16, 16, 16), (1.0, 1.0, 1.0))
SHAPE = (20, 18, 17)


def settings(**fields):
    return Failures(**{"steps": 6, "features": 4, "stages": 2, "checkpoint_every": 2} | fields)


def model(**fields):
    return FailureModel(CALIBRATIONS, settings(**fields), GRID)


@pytest.fixture
def case():
    """A case whose chosen voxels are wrong where its image is bright, which no probability tells."""
    random = np.random.default_rng(0)
    image = random.normal(0, 1, (1, *SHAPE)).astype(np.float32)
    decisions = np.zeros((2, *SHAPE), bool)
    decisions[:, 5:15, 5:13, 5:12] = True
    reference = decisions & (image <= 1)
    logits = np.where(decisions, 1.5, -1.5).astype(np.float16)
    return FailureCase(image, logits, decisions, reference, np.argwhere(decisions[0]))


def arrays(case):
    return case.images, case.logits.astype(np.float32), case.decisions


def test_before_its_training_it_is_calibrated_p(case):
    untrained = model()
    found = failure_map(untrained.build(seed=0), *arrays(case))
    np.testing.assert_allclose(found, untrained.calibrated(case.logits, case.decisions), atol=1e-6)
    # of a chosen voxel with a margin of 1.5, and of one that is not chosen
    expected = 1 / (1 + np.exp(-np.array([-1.0 - 0.75 + 0.8 + 0.3, -1.0 - 0.75])))
    assert [found[0, 6, 6, 6], found[0, 0, 0, 0]] == pytest.approx(expected, abs=1e-6)


def test_evidence_for_a_region_speaks_against_the_decision_that_denies_it(case):
    network = model(evidence="region").build(seed=0)
    torch.nn.init.constant_(network.network.decoder.seg_layers[-1].bias, 2.0)  # everywhere, for either region
    found = failure_map(network, *arrays(case))
    expected = 1 / (1 + np.exp(-np.array([-1.0 - 0.75 + 0.8 + 0.3 - 2, -1.0 - 0.75 + 2])))
    assert [found[0, 6, 6, 6], found[0, 0, 0, 0]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("evidence", "steps"), [("failure", 150), ("region", 400)])
def test_it_learns_what_an_image_tells_of_failures(case, tmp_path, evidence, steps):
    how = {"steps": steps, "initial_lr": 0.01, "evidence": evidence}
    training = FailureTraining(model(**how).build(seed=0), settings(**how), 0, "")
    training.run([case], tmp_path / "latest.pth")
    near = case.decisions[0]
    found, wrong = failure_map(training.network, *arrays(case))[0][near], (case.decisions != case.reference)[0][near]
    assert found[wrong].mean() > 5 * found[~wrong].mean()
    assert np.mean(training.losses[-20:]) < 0.6 * np.mean(training.losses[:20])


def test_a_training_that_was_stopped_ends_as_one_that_was_not(case, tmp_path):
    def weights(folder, stop=None):
        training = FailureTraining(model().build(seed=3), settings(), 3, "source")

        def on_step(step, _loss):
            if step == stop:
                raise KeyboardInterrupt

        try:
            training.run([case], folder / "latest.pth", on_step)
        except KeyboardInterrupt:
            return weights(folder)
        return training.losses, training.network.state_dict()

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    (losses, whole), (resumed, parts) = weights(tmp_path / "whole"), weights(tmp_path / "parts", stop=4)
    assert resumed == losses
    assert all(torch.equal(parts[name], values) for name, values in whole.items())


def test_a_checkpoint_of_another_training_is_not_used(case, tmp_path):
    file = tmp_path / "latest.pth"
    FailureTraining(model().build(seed=3), settings(), 3, "other cases").run([case], file)
    fresh = FailureTraining(model().build(seed=3), settings(), 3, "these cases")
    steps = []
    fresh.run([case], file, lambda step, _loss: steps.append(step))
    assert steps == list(range(6))


def test_the_loss_counts_voxels_near_the_region_and_a_share_of_the_others(case):
    batch = draw_batch([case], (16, 16, 16), 2, np.random.default_rng(0), outside=0.25)
    assert set(batch.weights.flatten().tolist()) == {0.25, 1.0}
    network = model().build(seed=0)
    chance = network(batch.images, batch.logits, batch.decisions).detach().sigmoid().numpy().astype(float)
    wrong, weights = batch.wrong.numpy(), batch.weights.numpy()
    each = -np.where(wrong == 1, np.log(chance), np.log(1 - chance)) * weights
    expected = np.mean([each[:, region].sum() / (weights[:, region] == 1).sum() for region in range(2)])
    assert failure_loss(network, batch).item() == pytest.approx(expected, rel=1e-5)


def test_patches_show_what_the_case_has_there(case):
    """However a patch is mirrored, voxels are wrong where the image, whose intensities change a little, is bright."""
    for seed in range(5):
        batch = draw_batch([case], (16, 16, 16), 2, np.random.default_rng(seed), outside=0)
        assert batch.images[batch.wrong[:, :1] == 1].min() > 0.5
        assert batch.images[(batch.wrong[:, :1] == 0) & batch.decisions[:, :1]].max() < 1.6
        assert torch.equal(batch.decisions, batch.logits > 0)


def test_a_patch_that_is_larger_than_the_case_counts_nothing_beyond_it(case):
    part = (array[:, 5:13] for array in (*arrays(case), case.reference))
    small = FailureCase(*part, case.centres[:5] - [5, 0, 0])
    batch = draw_batch([small], (16, 16, 16), 1, np.random.default_rng(1), outside=0.5)
    assert (batch.weights > 0).sum() == 2 * 8 * 16 * 16
    assert not batch.decisions[batch.weights == 0].any()
    assert failure_map(model().build(seed=0), *(array[:, 5:13] for array in arrays(case))).shape == (2, 8, *SHAPE[1:])


@pytest.mark.parametrize("trained", [False, True])
def test_a_model_is_read_as_it_was_written(case, tmp_path, trained):
    own = model(evidence="region")
    if trained:
        network = own.build(seed=1)
        torch.nn.init.normal_(network.network.decoder.seg_layers[-1].weight)
        own = FailureModel(own.calibrations, own.settings, own.grid, network)
    own.save(tmp_path / "failures.pth")
    read = FailureModel.load(tmp_path / "failures.pth")
    assert (read.calibrations, read.settings, read.grid) == (own.calibrations, own.settings, own.grid)
    found, expected = read.failures(*arrays(case)), own.failures(*arrays(case))
    assert (found is None) == (expected is None) == (not trained)
    if trained:
        np.testing.assert_array_equal(found, expected)
        assert np.abs(found - own.calibrated(case.logits, case.decisions)).max() > 0.1


def test_a_model_that_was_written_before_there_was_evidence_speaks_for_failures(case, tmp_path):
    own = model(evidence="failure")
    network = own.build(seed=1)
    torch.nn.init.normal_(network.network.decoder.seg_layers[-1].weight)
    own = FailureModel(own.calibrations, own.settings, own.grid, network)
    own.save(tmp_path / "failures.pth")
    content = torch.load(tmp_path / "failures.pth", weights_only=True)
    del content["settings"]["evidence"]
    torch.save(content, tmp_path / "failures.pth")
    np.testing.assert_array_equal(
        FailureModel.load(tmp_path / "failures.pth").failures(*arrays(case)), own.failures(*arrays(case))
    )


def test_a_network_without_images_does_not_see_them(case):
    network = model(sees_images=False).build(seed=1)
    torch.nn.init.normal_(network.network.decoder.seg_layers[-1].weight)
    images, logits, decisions = arrays(case)
    np.testing.assert_array_equal(
        failure_map(network, images, logits, decisions), failure_map(network, images + 5, logits, decisions)
    )


@pytest.mark.parametrize(("patch", "expected"), [((50, 36, 17), (52, 36, 20)), ((32, 32, 32), (32, 32, 32))])
def test_a_patch_is_rounded_up_to_what_the_stages_take(patch, expected):
    rounded = model(stages=3, patch_size=patch).build(seed=0)
    assert rounded.patch == expected
    shape = (1, 2, *expected)
    assert rounded(torch.zeros(1, 1, *expected), torch.zeros(shape), torch.zeros(shape).bool()).shape == shape


def test_a_training_that_diverges_writes_nothing(case, tmp_path):
    case.images[:] = np.inf
    training = FailureTraining(model().build(seed=0), settings(), 0, "")
    with pytest.raises(FloatingPointError, match="initial_lr"):
        training.run([case], tmp_path / "latest.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["settings"].update(unknown=1),
        lambda content: content["grid"].pop("patch"),
        lambda content: content["calibrations"][0].__setitem__(0, float("nan")),
    ],
    ids=["settings", "grid", "calibration"],
)
def test_a_model_of_another_version_is_named(tmp_path, change):
    model().save(tmp_path / "failures.pth")
    content = torch.load(tmp_path / "failures.pth")
    content["calibrations"] = [list(numbers) for numbers in content["calibrations"]]
    change(content)
    torch.save(content, tmp_path / "failures.pth")
    with pytest.raises(ProblemsFound, match=r"failures\.pth"):
        FailureModel.load(tmp_path / "failures.pth")


def test_slices_are_judged_in_three_dimensions():
    flat = FailureModel(CALIBRATIONS, settings(), Grid(1, (32, 24), (5.0, 1.0, 1.0)))
    assert flat.build(seed=0).patch == (8, 32, 24)
