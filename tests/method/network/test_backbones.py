"""Backbones: their sizes and outputs, and a real fold of each."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from support.training import predictor_of_checkpoint, train
from uncseg.config.backbones import TransBts
from uncseg.config.training_sections import Model
from uncseg.errors import ProblemsFound
from uncseg.estimators.mc_dropout import ChannelDropout, one_sample
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.network.backbone import NetworkPlan, around_bottleneck, build_backbone, output_layer
from uncseg.method.network.backbones.transbts import TransBTS
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.outputs import Outputs

ONE_EPOCH = {"training": {"epochs": 1, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1}}
SMALL = {
    "swin_unetr": {"feature_size": 12, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]},
    "transbts": {"base_features": 8, "embedding": 32, "layers": 1, "heads": 4, "hidden": 64},
}


def model_of(backbone, **more):
    return {"backbone": backbone, "deep_supervision": False, backbone: SMALL[backbone], **more}


def plan_of(*patch):
    """A plan without nnU-Net's plans, which a backbone of one's own does not read."""
    meaning = Outputs.of(paper_task(), "labels")
    return NetworkPlan(None, SimpleNamespace(patch_size=patch), inputs=4, outputs=4, meaning=meaning)


def test_transbts_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = TransBTS(4, 4, (128, 128, 128), TransBts())
    assert sum(p.numel() for p in network.parameters()) == 32_987_588


def test_transbts_takes_other_patches_and_trains_every_parameter():
    settings = TransBts.model_validate(SMALL["transbts"])
    network = TransBTS(4, 5, (16, 24, 32), settings)
    x = torch.randn(2, 4, 16, 24, 32)
    out = network(x)
    assert out.shape == (2, 5, 16, 24, 32)
    out.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters()), "every parameter has a gradient"


def test_transbts_sees_the_whole_patch():
    """Through the transformer, a voxel in one corner changes the opposite corner."""
    network = TransBTS(1, 1, (32, 32, 32), TransBts.model_validate(SMALL["transbts"])).eval()
    x = torch.randn(1, 1, 32, 32, 32)
    other = x.clone()
    other[..., :4, :4, :4] += 3
    with torch.no_grad():
        change = (network(other) - network(x)).abs()
    assert float(change[..., -4:, -4:, -4:].max()) > 0


@pytest.mark.parametrize("backbone", sorted(SMALL))
def test_network_is_built_without_memory(backbone):
    def build():
        return build_backbone(Model.model_validate(model_of(backbone)), plan_of(64, 32, 32))

    with torch.device("meta"):
        shapes = build()
    assert all(weight.is_meta for weight in shapes.parameters())
    assert [w.shape for w in shapes.parameters()] == [w.shape for w in build().parameters()]


@pytest.mark.parametrize("uncertainty", [False, True])
@pytest.mark.parametrize("backbone", sorted(SMALL))
def test_fold_trains_and_predicts_from_its_checkpoint(trainer_for, backbone, uncertainty):
    trainer = trainer_for(
        model=model_of(backbone, uncertainty=uncertainty, dropout=0.2),
        plan={"patch_size": [64 if backbone == "swin_unetr" else 32, 32, 32]},
        loss={"warmup_epochs": 0},
        training=ONE_EPOCH["training"] | {"optimizer": "adamw", "initial_lr": 0.001},
    )
    inner = trainer.network.backbone if uncertainty else trainer.network
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert output_layer(inner).out_channels == 4
    assert sum(isinstance(layer, ChannelDropout) for layer in trainer.network.modules()) == 3
    metrics = train(trainer)[0]
    assert np.isfinite(metrics["train/loss"])
    assert ("train/loss_unc" in metrics) == uncertainty
    predictor = predictor_of_checkpoint(trainer.output_folder_base)
    data = np.random.default_rng(0).normal(size=(4, 30, 34, 40)).astype(np.float32)
    grid = predict_grid(predictor, data)
    assert grid.logits.shape == (4, 30, 34, 40)
    assert ("uncertainty" in grid.maps) == uncertainty
    again = predict_grid(predictor, data)
    np.testing.assert_array_equal(grid.logits, again.logits)


@pytest.mark.parametrize("plan", [{}, {"preset": "resenc_m"}, {"configuration": "2d", "patch_size": [32, 32]}])
def test_planned_networks_have_an_output_layer_and_a_bottleneck(trainer_for, plan):
    trainer = trainer_for(model={"dropout": 0.2}, plan=plan)
    backbone = trainer.network.backbone
    assert output_layer(backbone).out_channels == 4
    blocks = around_bottleneck(backbone)
    assert len(blocks) == 3
    seen = []
    handles = [block.register_forward_hook(lambda _b, _i, out: seen.append(out.shape)) for block in blocks]
    dimensions = len(trainer.configuration_manager.patch_size)
    trainer.network(torch.randn(1, 4, *[32] * dimensions))
    for handle in handles:
        handle.remove()
    assert len(seen) == 3
    assert min(seen, key=lambda shape: shape[2])[2:] == seen[1][2:], "the middle one is the lowest"


@pytest.mark.parametrize(
    ("model", "plan"),
    [
        ({}, {}),
        ({}, {"preset": "resenc_m"}),
        (model_of("transbts"), {"patch_size": [16, 16, 16]}),
        (model_of("swin_unetr"), {"patch_size": [64, 32, 32]}),
    ],
)
def test_each_dropout_acts_once_per_pass_with_its_share(trainer_for, model, plan):
    p = 0.25
    trainer = trainer_for(model=model | {"dropout": p}, plan=plan)
    seen = []
    layers = [layer for layer in trainer.network.modules() if isinstance(layer, ChannelDropout)]
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0], output)))
    patch = trainer.configuration_manager.patch_size
    with torch.no_grad():
        trainer.network.train()(torch.randn(1, 4, *patch))
        with one_sample(trainer.network, seed=0, sample=0):
            trainer.network.eval()(torch.randn(1, 4, *patch))
    order = [layer for layer, _, _ in seen]
    assert order == order[:3] * 2
    assert set(order) == set(layers)
    for _, before, after in seen:
        kept = (after != 0).flatten(2).any(2)
        torch.testing.assert_close(after[kept], before[kept] / (1 - p))
    # what follows a block reads what its dropout gave
    blocks = around_bottleneck(getattr(trainer.network, "backbone", trainer.network))
    outputs = []
    for block in blocks:
        block.register_forward_hook(lambda _block, _inputs, output: outputs.append(output))
    seen.clear()
    with torch.no_grad(), one_sample(trainer.network, seed=0, sample=0):
        trainer.network(torch.randn(1, 4, *patch))
    assert all(torch.equal(after, output) for (_, _, after), output in zip(seen, outputs, strict=True))


def test_adamw_resumes_bit_for_bit(trainer_for):
    settings = {
        "model": model_of("transbts"),
        "plan": {"patch_size": [16, 16, 16]},
        "training": {
            "epochs": 2,
            "iterations_per_epoch": 2,
            "val_iterations_per_epoch": 1,
            "checkpoint_every": 1,
            "optimizer": "adamw",
            "initial_lr": 0.001,
        },
    }
    whole = trainer_for("whole", **settings)
    train(whole)
    first = trainer_for("parts", **settings)
    first.num_epochs = 1
    train(first)
    second = trainer_for("parts", **settings)
    second.load_checkpoint(f"{second.output_folder}/checkpoint_final.pth")
    assert second.current_epoch == 1
    train(second)
    pairs = zip(whole.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("missing", ["monai", "einops"])
def test_missing_package_is_named(monkeypatch, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing or name.endswith(".swin_unetr")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # as Python itself marks a module that cannot be imported
    with pytest.raises(ProblemsFound) as caught:
        build_backbone(Model.model_validate(model_of("swin_unetr")), plan_of(64, 32, 32))
    (problem,) = caught.value.problems
    assert problem.found == f"no {missing}"
    assert problem.advice == "pip install 'uncseg[backbones]'"


def test_planned_patch_that_does_not_fit_is_named():
    model = Model.model_validate(model_of("transbts"))
    with pytest.raises(ProblemsFound) as caught:
        build_backbone(model, plan_of(40, 36, 32))
    (problem,) = caught.value.problems
    assert problem.where == "plan.patch_size"
    assert "[40, 32, 32]" in problem.advice
