"""Estimators of several passes on real networks, through the predictor that `uncseg predict` uses."""

import numpy as np
import pytest
import torch

from support.training import SHORT, predictor_of_checkpoint, quiet_predictor, train
from uncseg.config.sections import Estimators
from uncseg.estimators.mc_dropout import ChannelDropout
from uncseg.method.inference.native_space import decision_probability, predict_grid
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork

DATA = np.random.default_rng(0).normal(size=(4, 20, 24, 28)).astype(np.float32)
PLAIN = {"uncertainty": False}


def predictor_of(trainer, **options):
    """Put the trainer's network into a predictor, whose tiles overlap."""
    predictor = quiet_predictor(**options)
    managers = trainer.plans_manager, trainer.configuration_manager
    about = trainer.dataset_json, "UncertaintyTrainer", trainer.inference_allowed_mirroring_axes
    predictor.manual_initialization(trainer.network, *managers, None, *about)
    predictor.outputs = trainer.outputs
    return predictor


def test_dropout_is_on_in_samples_and_off_in_every_other_prediction(trainer_for):
    trainer = trainer_for(model=PLAIN | {"dropout": 0.5})
    layers = [layer for layer in trainer.network.modules() if isinstance(layer, ChannelDropout)]
    assert len(layers) == 3, "before, at and after the bottleneck"
    predictor = predictor_of(trainer)
    first, again = (predict_grid(predictor, DATA).logits for _ in range(2))
    np.testing.assert_array_equal(first, again)
    estimators = Estimators.model_validate({"mc_dropout": {"samples": 4}})
    estimate = estimate_grid("mc_dropout", [predictor], DATA, estimators)
    assert estimate.maps["mc_dropout_epistemic"].max() > 0
    np.testing.assert_array_equal(predict_grid(predictor, DATA).logits, first)
    same = estimate_grid("mc_dropout", [predictor], DATA, estimators)
    np.testing.assert_array_equal(same.logits, estimate.logits)
    for layer in layers:
        layer.p = 0.0
    np.testing.assert_array_equal(predict_grid(predictor, DATA).logits, first)
    none = estimate_grid("mc_dropout", [predictor], DATA, estimators)
    assert none.maps["mc_dropout_epistemic"].max() == 0


def test_overlapping_tiles_share_one_dropout_mask(trainer_for):
    """Overlapping tiles are averaged: with a mask of its own, the border of a tile would show."""
    trainer = trainer_for(model=PLAIN | {"dropout": 0.5})
    predictor = predictor_of(trainer, tile_step_size=0.5, use_gaussian=False)
    seen = []
    handle = trainer.network.encoder.stages[-1].register_forward_hook(
        lambda _block, _inputs, output: seen.append((output == 0).flatten(2).all(2)[0])
    )
    estimate_grid("mc_dropout", [predictor], DATA, Estimators.model_validate({"mc_dropout": {"samples": 2}}))
    handle.remove()
    tiles = len(seen) // 2
    assert tiles > 1
    # the rectifier sets channels to 0 too, so the mask is what all tiles have in common
    for number, sample in enumerate((seen[:tiles], seen[tiles:])):
        dropped = torch.stack(sample).all(0)
        assert dropped.any(), f"sample {number}"
    assert not torch.equal(torch.stack(seen[:tiles]).all(0), torch.stack(seen[tiles:]).all(0))


def test_ensemble_of_one_network_twice_is_certain_and_predicts_the_same(trainer_for):
    predictor = predictor_of(trainer_for(model=PLAIN))
    estimate = estimate_grid("deep_ensemble", [predictor, predictor], DATA, Estimators(deep_ensemble=True))
    assert estimate.maps["deep_ensemble_epistemic"].max() == 0
    alone = predict_grid(predictor, DATA).logits
    np.testing.assert_array_equal(estimate.logits.argmax(0), alone.argmax(0))


def test_heteroscedastic_network_trains_and_predicts_its_variance(trainer_for):
    trainer = trainer_for(model=PLAIN | {"heteroscedastic": True}, **SHORT)
    before = [p.clone() for p in trainer.network.parameters()]
    losses = [epoch["train/loss"] for epoch in train(trainer).values()]
    assert np.isfinite(losses).all()
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    predictor = predictor_of(trainer)
    grid = predict_grid(predictor, DATA)
    assert grid.maps == {}
    assert grid.logits.shape == (4, *DATA.shape[1:]), "what nnU-Net expects"
    assert predictor.maps["log_variance"].shape == DATA.shape[1:]
    estimators = Estimators.model_validate({"heteroscedastic": {"samples": 6}})
    estimate = estimate_grid("heteroscedastic", [predictor], DATA, estimators)
    assert 0 < estimate.maps["heteroscedastic_variance"].max() <= 1


def test_chosen_estimators_are_validated_while_a_fold_trains(trainer_for):
    estimators = {"augmentation": {"samples": 2}, "mc_dropout": {"samples": 2}}
    trainer = trainer_for(model=PLAIN | {"dropout": 0.3}, evaluation={"estimators": estimators}, **SHORT)
    epochs = train(trainer)
    for name in ("augmentation_variance", "mc_dropout_epistemic", "mc_dropout_entropy"):
        assert np.isfinite(epochs[1][f"uncertainty/union/rmsd_ema/{name}"])


def test_validating_estimators_changes_no_weight(trainer_for):
    model = PLAIN | {"dropout": 0.3}
    estimators = {"augmentation": {"samples": 2}, "mc_dropout": {"samples": 2}}
    weights = []
    for number, chosen in enumerate(({}, estimators)):
        trainer = trainer_for(f"results_{number}", model=model, evaluation={"estimators": chosen}, **SHORT)
        train(trainer)
        weights.append([p.detach().clone() for p in trainer.network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("detached", [False, True])
def test_detached_head_trains_its_own_weights_alone(trainer_for, detached):
    trainer = trainer_for(model={"detached": detached})
    network = trainer.network
    assert isinstance(network, MaskedUncertaintyNetwork)
    x = torch.randn(1, 4, 16, 16, 16)
    _, u = network(x, uncertainty=True)
    u.square().sum().backward()
    changed = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    last = {name for name in changed if "seg_layers" in name}
    assert last, "the head itself learns"
    assert (changed == last) == detached
    rows = dict(network.named_parameters())[next(n for n in sorted(last) if n.endswith("weight"))].grad.flatten(1)
    assert float(rows[:3].abs().sum()) == 0, "the segmentation's own weights stay"


def test_checkpoint_with_dropout_predicts_as_its_trainer(trainer_for):
    trainer = trainer_for(model=PLAIN | {"dropout": 0.4}, **SHORT)
    train(trainer)
    loaded = predictor_of_checkpoint(trainer.output_folder_base)
    np.testing.assert_array_equal(predict_grid(loaded, DATA).logits, predict_grid(predictor_of(trainer), DATA).logits)
    assert Estimators(one_pass=("entropy",)).several_pass == ()


def test_decision_probability():
    classes = np.array([[0.4, 0.1, 0.0], [0.3, 0.2, 0.0], [0.2, 0.6, 0.0], [0.1, 0.1, 0.0]])[:, None, None]
    found = decision_probability(classes, classes[1:].sum(0), regions=False)
    np.testing.assert_allclose(found[0, 0], [0.4, 0.6, 1], rtol=1e-6, err_msg="beyond the crop it is certain")
    regions = np.array([[0.3, 0.9, 0.0], [0.2, 0.8, 0.0], [0.1, 0.1, 0.0]])[:, None, None]
    found = decision_probability(regions, regions[0], regions=True)
    np.testing.assert_allclose(found[0, 0], [0.7, 0.9, 1], rtol=1e-6)
