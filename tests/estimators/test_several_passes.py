"""What the maps of several predictions mean, on networks small enough to know the answer."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from uncseg.estimators.augmentation import draw_change, resample
from uncseg.estimators.drawn_logits import expected_likelihood_logits, mean_of_draws
from uncseg.estimators.entropy import predictive_entropy
from uncseg.estimators.mc_dropout import ChannelDropout, add_dropout, one_sample
from uncseg.estimators.moments import Moments, class_probabilities
from uncseg.estimators.one_pass import OnePass
from uncseg.estimators.registry import Augmentation, LogitSamples, McDropout
from uncseg.estimators.several_passes import FoldNetwork, Passes, estimate_several_passes
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.outputs import Outputs

SHAPE = (1, 4, 6, 7, 8)


def network(p, seed=0):
    """Two convolutions with channel dropout between them; 3 outputs (regions)."""
    torch.manual_seed(seed)
    blocks = nn.Sequential(nn.Conv3d(4, 32, 1), nn.ReLU(), nn.Conv3d(32, 3, 1))
    add_dropout([blocks[1]], p)
    return blocks.eval()


def predict(net, x):
    with torch.no_grad():
        return class_probabilities(net(x)[0], "regions")


def maps_of(name, images, logits, settings=None, modules=(None,), axes=(), output="regions"):
    """The maps of an estimator; ``logits`` takes a network and images, and returns logits and their log-variance."""
    networks = [FoldNetwork(module, lambda x, module=module: logits(module, x)) for module in modules]
    noise = torch.Generator().manual_seed(0)
    return estimate_several_passes(
        name, Passes(images, networks, Outputs.of(paper_task(), output), settings, axes, noise)
    )[1]


def forward(net, x):
    with torch.no_grad():
        return net(x[None])[0], None


def dropout_maps(p, samples=40):
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))[0]
    return maps_of("mc_dropout", x, forward, McDropout(samples=samples), [network(p)])


def test_variance_of_dropout_is_0_without_it_and_grows_with_it():
    spread = [float(dropout_maps(p)["mc_dropout_epistemic"].mean()) for p in (0.0, 0.1, 0.3, 0.5)]
    assert spread[0] == 0
    assert spread == sorted(spread)
    assert spread[-1] > 2 * spread[1]


def test_kwons_parts_add_up_to_the_whole():
    maps = dropout_maps(0.4)
    parts = maps["mc_dropout_aleatoric"] + maps["mc_dropout_epistemic"]
    torch.testing.assert_close(parts, maps["mc_dropout_total"])
    assert float(maps["mc_dropout_epistemic"].max()) > 0.01


def test_a_sample_is_one_network_for_the_whole_volume():
    net, x = network(0.5), torch.randn(SHAPE)
    with one_sample(net, seed=0, sample=3):
        first, again = predict(net, x), predict(net, x)
        mirrored = predict(net, x.flip(2)).flip(1)
    with one_sample(net, seed=0, sample=4):
        other = predict(net, x)
    with one_sample(net, seed=0, sample=3):
        same = predict(net, x)
    assert torch.equal(first, again)
    assert torch.equal(first, mirrored)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_dropout_is_off_in_an_ordinary_prediction_and_on_in_training():
    net, plain, x = network(0.5), network(0.0), torch.randn(SHAPE)
    assert torch.equal(predict(net, x), predict(plain, x))
    with one_sample(net, seed=0, sample=0):
        predict(net, x)
    assert torch.equal(predict(net, x), predict(plain, x)), "a sample that has ended leaves nothing behind"
    net.train()
    assert not torch.equal(predict(net, x), predict(net, x))


def test_dropout_leaves_the_names_of_weights_and_the_mean_alone():
    assert network(0.5).state_dict().keys() == network(0.0).state_dict().keys()
    dropout = ChannelDropout(0.25).train()
    x = torch.ones(400, 50, 2)
    out = dropout(x)
    assert sorted(out.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert abs(float(out.mean()) - 1) < 0.02
    assert torch.equal(out[..., 0], out[..., 1]), "a channel is dropped as a whole"


def test_identical_members_have_no_variance_and_different_ones_have():
    x = torch.randn(SHAPE)[0]
    same = maps_of("deep_ensemble", x, forward, modules=[network(0, seed=5) for _ in range(3)])
    assert float(same["deep_ensemble_epistemic"].max()) == 0
    other = maps_of("deep_ensemble", x, forward, modules=[network(0, seed=n) for n in range(3)])
    assert float(other["deep_ensemble_epistemic"].mean()) > 0.001


@pytest.mark.parametrize("output", ["labels", "regions"])
def test_moments_are_those_of_numpy(output):
    random = np.random.default_rng(0)
    samples = [torch.from_numpy(random.normal(size=(4 if output == "labels" else 3, 5, 6))) for _ in range(7)]
    moments = Moments(Outputs.of(paper_task(), output))
    for sample in samples:
        moments.add(class_probabilities(sample, output))
    p = np.stack([s.double().softmax(0)[1:].sum(0) if output == "labels" else s.sigmoid()[0] for s in samples])
    maps = moments.maps()
    for between in (maps["epistemic"], maps["variance"]):
        np.testing.assert_allclose(between, 4 * p.var(0), atol=1e-6)
    np.testing.assert_allclose(maps["aleatoric"], 4 * (p * (1 - p)).mean(0), atol=1e-6)
    np.testing.assert_allclose(maps["total"], 4 * p.mean(0) * (1 - p.mean(0)), atol=1e-6)
    back = class_probabilities(moments.logits, output)
    mean = np.mean([class_probabilities(s, output).numpy() for s in samples], axis=0)
    np.testing.assert_allclose(back, mean, atol=1e-6)


def test_augmentation_has_no_variance_where_the_network_does_not_mind():
    net = network(0)
    x = torch.randn(SHAPE)[0]
    settings = Augmentation(samples=16, noise_sd=0)
    maps = maps_of("augmentation", x, forward, settings, [net], [1, 2, 3])
    assert float(maps["augmentation_variance"].max()) == 0
    noisy = Augmentation(samples=16, noise_sd=0.5)
    maps = maps_of("augmentation", x, forward, noisy, [net], [1, 2, 3])
    assert float(maps["augmentation_variance"].mean()) > 0.001


def test_augmentation_finds_a_network_that_minds_being_mirrored():
    net = nn.Conv3d(1, 3, (3, 1, 1), padding=(1, 0, 0), bias=False).eval()
    with torch.no_grad():
        net.weight[:] = torch.tensor([1.0, 0, 0])[None, None, :, None, None]
    x = torch.randn((1, 6, 7, 8))
    settings = Augmentation(samples=4, noise_sd=0)
    along, across = (maps_of("augmentation", x, forward, settings, [net], axes) for axes in ([2, 3], [1, 2]))
    assert float(along["augmentation_variance"].max()) == 0
    assert float(across["augmentation_variance"].mean()) > 0.01


def test_the_first_samples_are_every_choice_of_mirrored_axes_then_the_same_with_noise():
    changes = [draw_change(n, (1, 2, 3), (2, 4, 4, 4), Augmentation(noise_sd=0.1)) for n in range(16)]
    assert {change.flip for change in changes[:8]} == {change.flip for change in changes[8:]}
    assert len({change.flip for change in changes[:8]}) == 8
    assert [change.noise is None for change in changes] == [True] * 8 + [False] * 8
    assert not torch.equal(changes[8].noise, changes[9].noise)


def test_a_turned_volume_is_turned_back():
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (20, 24, 28)], indexing="ij")
    volume = torch.exp(-(z**2 + 2 * (y - 0.2) ** 2 + 3 * (x + 0.1) ** 2) * 3)[None]
    settings = Augmentation(rotation_degrees=20, scaling=0.1, noise_sd=0)
    matrix = draw_change(5, (1, 2, 3), volume.shape, settings).matrix
    turned = resample(volume, matrix)
    back = resample(turned, torch.linalg.inv(matrix))
    assert float((turned - volume).abs().max()) > 0.05
    inner = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    assert float((back - volume)[inner].abs().max()) < 0.05


def test_a_turned_volume_is_scipys():
    """Any matrix, about the middle, on a volume that is no cube: voxels are the unit along each axis."""
    volume = torch.randn((2, 7, 10, 13), dtype=torch.float64)
    settings = Augmentation(rotation_degrees=35, scaling=0.2, noise_sd=0)
    matrix = draw_change(3, (1, 2, 3), volume.shape, settings).matrix
    middle = (np.array(volume.shape[1:]) - 1) / 2
    offset = middle - matrix.numpy() @ middle
    found = resample(volume, matrix)
    for channel, turned in zip(volume, found, strict=True):
        expected = ndimage.affine_transform(channel.numpy(), matrix.numpy(), offset, order=1, mode="nearest")
        np.testing.assert_allclose(turned, expected, atol=1e-6)


@pytest.mark.parametrize("turned", [{"rotation_degrees": 25}, {"scaling": 0.2}])
def test_turned_and_scaled_copies_are_changed_back_before_they_are_compared(turned):
    """A network that looks at single voxels says the same of a turned copy, but for the interpolation."""
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (24, 30, 36)], indexing="ij")
    volume = 4 * torch.exp(-3 * ((z - 0.2) ** 2 + 2 * y**2 + (x + 0.3) ** 2))[None] - 2
    inner = (slice(8, -8), slice(8, -8), slice(8, -8))
    settings, seen = Augmentation(samples=6, noise_sd=0, **turned), []
    maps = maps_of("augmentation", volume, lambda _, image: (seen.append(image) or image, None), settings)
    assert float(maps["augmentation_variance"][inner].max()) < 1e-3
    unlike = torch.stack(seen).sigmoid().var(0, unbiased=False)[0]
    assert 4 * float(unlike[inner].max()) > 0.02, "the copies themselves are far from each other"


def test_noise_of_many_passes_averages_out():
    """Equal voxels of one logit and one sigma: their mean over passes is the same probability, by Gauss and Hermite."""
    z, sigma, passes = -1.0, 3.0, 50
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = float((weights / (1 + np.exp(-(z + sigma * nodes)))).sum() / weights.sum())
    logits, log_variance = torch.full((3, 4000), z), torch.full((4000,), 2 * math.log(sigma))
    generator, moments = torch.Generator().manual_seed(0), Moments(Outputs.of(paper_task(), "regions"))
    for _ in range(passes):
        moments.add(mean_of_draws(logits, log_variance, "regions", generator))
    assert float(moments.p_main.mean()) == pytest.approx(expected, abs=0.005)
    # 200 draws of a voxel, each of a standard deviation under one half
    assert float(moments.p_main.std()) < 0.5 / math.sqrt(200)


def entropy_of(p_main):
    p_main = torch.tensor(p_main)
    return predictive_entropy(OnePass(p_main, torch.maximum(p_main, 1 - p_main), p_main > 0.5))


def test_entropy_is_0_where_a_sum_of_probabilities_rounds_above_1():
    assert entropy_of([1 + 2**-23, -(2**-24)]).tolist() == [0, 0]


def test_entropy_is_1_at_one_half_and_0_where_nothing_is_doubted():
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    expected = torch.tensor([0, quarter, 1, quarter, 0], dtype=torch.float32)
    torch.testing.assert_close(entropy_of([0.0, 0.25, 0.5, 0.75, 1.0]), expected)


@pytest.mark.parametrize("true_sigma", [1.2, 3.0])
def test_a_log_variance_trained_on_noisy_decisions_finds_their_noise(true_sigma):
    """Decisions are drawn from logits of known mean and unknown noise; their shares are Gauss and Hermite's."""
    torch.manual_seed(0)
    z = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    noisy = z.numpy()[:, None] + true_sigma * nodes
    share = torch.from_numpy((weights / (1 + np.exp(-noisy))).sum(1) / weights.sum()).float()
    z, y = z.repeat_interleave(1000), share.repeat_interleave(1000)
    log_variance = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([log_variance], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        logits = expected_likelihood_logits(
            z[None, None].expand(1, 3, -1), log_variance.expand(1, 1, len(z)), samples=100, output="regions"
        )[0, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        optimizer.step()
    assert math.exp(log_variance.item() / 2) == pytest.approx(true_sigma, rel=0.1)


def test_expected_likelihood_is_the_mean_of_softmax_over_draws():
    z, log_variance = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 1, 4, 5, 6)
    torch.manual_seed(3)
    logits = expected_likelihood_logits(z, log_variance, samples=6, output="labels")
    torch.manual_seed(3)
    drawn = [z + (log_variance / 2).exp() * torch.randn_like(z) for _ in range(6)]
    mean = torch.stack([torch.cat((torch.zeros_like(d[:, :1]), d), 1).softmax(1) for d in drawn]).mean(0)
    torch.testing.assert_close(logits.softmax(1), mean)


def test_drawn_logits_vary_where_the_network_says_so():
    logits = torch.zeros(4, 2, 50)
    log_variance = torch.tensor([-20.0, 2.0])[:, None].expand(2, 50)
    drawn = maps_of(
        "heteroscedastic", logits, lambda *_: (logits, log_variance), LogitSamples(samples=200), output="labels"
    )
    variance = drawn["heteroscedastic_variance"]
    assert float(variance[0].max()) < 1e-4
    assert float(variance[1].min()) > 0.1
