"""The network: a fixed background, and an uncertainty channel that does not change the segmentation."""

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from uncseg.method.network.logits import main_probability, max_probability, predicted_regions, reference_regions
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tasks.outputs import Outputs
from uncseg.tasks.task import Task

LABELS, REGIONS = (Outputs.of(paper_task(), kind) for kind in ("labels", "regions"))
ONE_LABEL = Task(modalities=("ct",), labels={"lesion": 1})
SEVEN_LABELS = Task(
    modalities=("ct",),
    labels={name: number for number, name in enumerate("abcdefg", 1)},
    regions={"every": tuple("abcdefg"), "odd": tuple("aceg"), "g": ("g",), "bd": ("b", "d"), "f": ("f",)},
    main_region="bd",
)
TASKS = [ONE_LABEL, paper_task(), built_in("gli-2024"), built_in("ped-2024"), SEVEN_LABELS]


def network(output, deep_supervision=True):
    torch.manual_seed(0)
    sizes = (2, 3, (4, 8, 16), nn.Conv3d, 3, (1, 2, 2), 1, 4, 1)
    layers = {"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}, "nonlin": nn.LeakyReLU}
    backbone = PlainConvUNet(*sizes, conv_bias=True, deep_supervision=deep_supervision, **layers)
    return MaskedUncertaintyNetwork(backbone, output)


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_background_logit_is_zero(deep_supervision):
    net = network("labels", deep_supervision)
    output = net(torch.randn(2, 2, 16, 16, 16))
    outputs = output if deep_supervision else [output]
    assert len(outputs) == (2 if deep_supervision else 1)
    for logits in outputs:
        assert logits.shape[1] == 4
        assert torch.count_nonzero(logits[:, 0]) == 0
        assert torch.count_nonzero(logits[:, 1:]) > 0


@pytest.mark.parametrize("output", ["labels", "regions"])
def test_weights_of_u_do_not_change_the_segmentation(output):
    net, x = network(output).eval(), torch.randn(1, 2, 16, 16, 16)
    before, u_before = net(x, uncertainty=True)
    with torch.no_grad():
        for layer in net.decoder.seg_layers:
            layer.weight[3].normal_()
            layer.bias[3] = 5
    after, u_after = net(x, uncertainty=True)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(u_before, u_after)


@pytest.mark.parametrize(("output", "channels"), [("labels", 4), ("regions", 3)])
def test_plain_forward_returns_what_nnunet_expects(output, channels):
    net = network(output, deep_supervision=False).eval()
    x = torch.randn(2, 2, 16, 16, 16)
    logits = net(x)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, channels, 16, 16, 16)
    both, u = net(x, uncertainty=True)
    assert torch.equal(both, logits)
    assert u.shape == (2, 1, 16, 16, 16)


def test_deep_supervision_is_switched_where_nnunet_switches_it():
    net = network("labels")
    net.decoder.deep_supervision = False
    assert isinstance(net(torch.randn(1, 2, 16, 16, 16)), torch.Tensor)


def test_probability_and_decision_of_labels():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).reshape(1, 4, 1, 1, 1)
    e = torch.exp(torch.tensor([0.0, 1.0, 2.0, -1.0]))
    assert main_probability(logits, LABELS).item() == pytest.approx(1 - (e[0] / e.sum()).item(), abs=1e-6)
    assert max_probability(logits, LABELS).item() == pytest.approx((e[2] / e.sum()).item(), abs=1e-6)
    # ED wins: whole tumour, neither core nor enhancing
    assert predicted_regions(logits, LABELS).flatten().tolist() == [True, False, False]


def test_probability_and_decision_of_regions():
    logits = torch.tensor([2.0, -1.0, 0.5]).reshape(1, 3, 1, 1, 1)
    p = 1 / (1 + torch.exp(torch.tensor(-2.0)))
    assert main_probability(logits, REGIONS).item() == pytest.approx(p.item(), abs=1e-6)
    assert max_probability(-logits, REGIONS).item() == pytest.approx(p.item(), abs=1e-6)
    assert predicted_regions(logits, REGIONS).flatten().tolist() == [True, False, True]


def test_reference_regions_of_labels():
    labels = torch.tensor([0, 1, 2, 3]).reshape(1, 1, 4, 1, 1)
    wt, tc, et = reference_regions(labels, LABELS)[0, :, :, 0, 0].tolist()
    assert wt == [False, True, True, True]
    assert tc == [False, True, False, True]
    assert et == [False, False, False, True]


def by_isin(labels, task):
    """Regions of label numbers (B, …) by NumPy, (B, R, …)."""
    return np.stack([np.isin(labels, numbers) for numbers in task.numbers.values()], axis=1)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{len(task.labels)}")
def test_decision_is_argmax_ties_included(task):
    # few distinct values, so that many voxels hold equal logits
    classes = len(task.labels) + 1
    logits = torch.randint(-2, 3, (2, classes, 10, 11, 12), generator=torch.Generator().manual_seed(0)).float()
    found = predicted_regions(logits, Outputs.of(task, "labels"))
    np.testing.assert_array_equal(found, by_isin(logits.numpy().argmax(1), task))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{len(task.labels)}")
def test_reference_of_labels_and_of_regions(task):
    random = np.random.default_rng(0)
    labels = random.integers(0, len(task.labels) + 1, size=(2, 5, 6, 7))
    expected = by_isin(labels, task)
    found = reference_regions(torch.from_numpy(labels)[:, None].float(), Outputs.of(task, "labels"))
    np.testing.assert_array_equal(found, expected)
    found = reference_regions(torch.from_numpy(expected).float(), Outputs.of(task, "regions"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{len(task.labels)}")
def test_main_probability_is_the_sum_of_the_main_regions_own_classes(task):
    logits = np.random.default_rng(0).normal(size=(2, len(task.labels) + 1, 3, 4, 5))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = p[:, list(task.numbers[task.main_region])].sum(1, keepdims=True)
    found = main_probability(torch.from_numpy(logits), Outputs.of(task, "labels"))
    np.testing.assert_allclose(found, own, atol=1e-6)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}-{len(task.labels)}")
def test_main_probability_of_regions_is_that_of_its_channel(task):
    logits = np.random.default_rng(0).normal(size=(2, len(task.regions), 3, 4, 5))
    found = main_probability(torch.from_numpy(logits), Outputs.of(task, "regions"))
    own = logits[:, [list(task.regions).index(task.main_region)]]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-own)), atol=1e-6)


def test_a_resection_cavity_is_not_part_of_the_main_region():
    outputs = Outputs.of(built_in("gli-2024"), "labels")
    cavity = torch.tensor([0.0, 0, 0, 0, 9]).reshape(1, 5, 1, 1, 1)
    assert main_probability(cavity, outputs).item() < 0.001
    assert predicted_regions(cavity, outputs).flatten().tolist() == [False, False, False, True]
    target = torch.tensor([4.0]).reshape(1, 1, 1, 1, 1)
    assert reference_regions(target, outputs).flatten().tolist() == [False, False, False, True]
