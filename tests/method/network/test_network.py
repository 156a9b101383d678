"""The network: a fixed background, and an uncertainty channel that does not change the segmentation."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from uncseg.method.network.uncertainty_network import (
    MaskedUncertaintyNetwork,
    max_probability,
    predicted_regions,
    reference_regions,
    wt_probability,
)


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
    assert wt_probability(logits, "labels").item() == pytest.approx(1 - (e[0] / e.sum()).item(), abs=1e-6)
    assert max_probability(logits, "labels").item() == pytest.approx((e[2] / e.sum()).item(), abs=1e-6)
    # ED wins: whole tumour, neither core nor enhancing
    assert predicted_regions(logits, "labels").flatten().tolist() == [True, False, False]


def test_probability_and_decision_of_regions():
    logits = torch.tensor([2.0, -1.0, 0.5]).reshape(1, 3, 1, 1, 1)
    p = 1 / (1 + torch.exp(torch.tensor(-2.0)))
    assert wt_probability(logits, "regions").item() == pytest.approx(p.item(), abs=1e-6)
    assert max_probability(-logits, "regions").item() == pytest.approx(p.item(), abs=1e-6)
    assert predicted_regions(logits, "regions").flatten().tolist() == [True, False, True]


def test_reference_regions_of_labels():
    labels = torch.tensor([0, 1, 2, 3]).reshape(1, 1, 4, 1, 1)
    wt, tc, et = reference_regions(labels, "labels")[0, :, :, 0, 0].tolist()
    assert wt == [False, True, True, True]
    assert tc == [False, True, False, True]
    assert et == [False, False, False, True]


def test_decision_is_nnunets_argmax_ties_included():
    # few distinct values, so that many voxels hold equal logits
    logits = torch.randint(-2, 3, (2, 4, 10, 11, 12), generator=torch.Generator().manual_seed(0)).float()
    label = torch.from_numpy(logits.numpy().argmax(1))
    expected = torch.stack((label > 0, (label == 1) | (label == 3), label == 3), dim=1)
    assert torch.equal(predicted_regions(logits, "labels"), expected)
