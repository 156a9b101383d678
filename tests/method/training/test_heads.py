"""Heads beyond the paper's: what they are made of, what they learn, and that the segmentation stays nnU-Net's."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from support.training import SHORT, Stopped, predictor_of_checkpoint, train, train_in_two_parts
from uncseg.config.failures import Failures
from uncseg.method.failures.calibration import Calibration
from uncseg.method.failures.cross_fitted_source import CrossFitted
from uncseg.method.failures.failure_model import FailureModel, Grid
from uncseg.method.training.error_sources import Members, Visit

RESIDUAL = {"residual": True}
STAGES = {"head": "decoder_stages"}
HEADS = [RESIDUAL, STAGES, RESIDUAL | STAGES, STAGES | {"detached": True}]
FLAT = {"plan": {"configuration": "2d", "patch_size": [16, 16], "batch_size": 4, "max_stages": 3}}
ONLY_ENTROPY = {"unc_weight": 0, "rmsd_weight": 0, "corr_weight": 0, "entropy_weight": 1, "warmup_epochs": 0}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(logits):
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def tumour_and_decision(logits, output):
    """Return the whole tumour's probability and the decision on it, by the definition of each output."""
    if output == "regions":
        return sigmoid(logits[:, :1]), logits[:, :1] > 0
    return softmax(logits)[:, 1:].sum(1, keepdims=True), logits.argmax(1)[:, None] > 0


def outputs_of(network, x):
    network.eval()
    with torch.no_grad():
        logits, u = network(x, uncertainty=True)
    logits = logits[0] if isinstance(logits, list) else logits
    return logits.double().numpy(), u.double().numpy()


def last_convolution(network, head):
    """Return weight and bias of the channel that gives the head's evidence."""
    if "head" in head:
        return network.head.last.weight, network.head.last.bias
    layer = network.backbone.decoder.seg_layers[-1]
    return layer.weight[-1:], layer.bias[-1:]


@pytest.mark.parametrize("output", ["labels", "regions"])
@pytest.mark.parametrize("head", [RESIDUAL, RESIDUAL | STAGES], ids=["output layer", "decoder stages"])
def test_a_residual_head_starts_at_the_probability_of_the_decision(trainer_for, head, output):
    """sigmoid(u) is 1 − p where the region is chosen, and p elsewhere; evidence for the region then moves it."""
    trainer = trainer_for(model={"output": output, **head}, loss={"weight_ce": None})
    x = 3 * torch.randn(2, 4, 16, 16, 16)
    logits, u = outputs_of(trainer.network, x)
    p, chosen = tumour_and_decision(logits, output)
    assert 0.05 < chosen.mean() < 0.95
    np.testing.assert_allclose(sigmoid(u), np.where(chosen, 1 - p, p), rtol=1e-3, atol=1e-6)
    _, bias = last_convolution(trainer.network, head)
    with torch.no_grad():
        bias += 1.5
    _, moved = outputs_of(trainer.network, x)
    np.testing.assert_allclose(moved - u, np.where(chosen, -1.5, 1.5), atol=1e-4)
    with torch.no_grad():
        trainer.network.residual.numbers += torch.tensor([0.3, -0.2, 0.5, 0.1])
    _, calibrated = outputs_of(trainer.network, x)
    margin = np.where(chosen, 1, -1) * np.log(p / (1 - p)).clip(-9.2, 9.2)
    np.testing.assert_allclose(calibrated - moved, 0.3 - 0.2 * margin + chosen * (0.5 + 0.1 * margin), atol=1e-3)


def test_a_residual_head_does_not_push_the_probability(trainer_for):
    """Of the output layer it moves its own channel alone; the features are shared."""
    network = trainer_for(model=RESIDUAL).network
    _, u = network(torch.randn(1, 4, 16, 16, 16), uncertainty=True)
    u.sum().backward()
    gradient = network.backbone.decoder.seg_layers[-1].weight.grad
    assert gradient[-1].abs().max() > 0
    assert not gradient[:-1].any()


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_decoder_stages_leave_the_segmentation_to_nnunet(trainer_for, deep_supervision):
    """The same weights in nnU-Net's own network give the same logits, at every resolution."""
    shared = {"plan": {"max_stages": 3, "patch_size": [16, 16, 16], "base_features": 4}}
    ours = trainer_for("ours", model={**STAGES, "deep_supervision": deep_supervision}, **shared).network.eval()
    model = {"uncertainty": False, "deep_supervision": deep_supervision}
    plain = trainer_for("plain", model=model, **shared).network.eval()
    plain.load_state_dict(ours.backbone.state_dict())
    x = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        expected, found = plain(x), ours(x)
        with_map, u = ours(x, uncertainty=True)
    assert isinstance(found, list) == deep_supervision == isinstance(with_map, list)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(with_map, expected)
    assert u.shape == (1, 1, 16, 16, 16)


def test_decoder_stages_are_all_read(trainer_for):
    network = trainer_for(model=STAGES, plan={"max_stages": 3}).network.eval()
    x = torch.randn(1, 4, 16, 16, 16)
    torch.nn.init.normal_(network.head.last.weight)
    assert len(network.head.entrances) == 2
    for entrance in network.head.entrances:
        with torch.no_grad():
            before = network(x, uncertainty=True)[1]
            entrance.weight.normal_()
            assert not torch.equal(network(x, uncertainty=True)[1], before)


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("sections", [{}, FLAT, {"model": {"deep_supervision": False}}], ids=["3d", "2d", "one output"])
def test_a_head_is_trained_and_its_checkpoint_is_all_that_a_prediction_needs(trainer_for, head, sections):
    model = sections.get("model", {}) | head
    trainer = trainer_for(**SHORT, **(sections | {"model": model, "loss": ONLY_ENTROPY, "memory": {"source": "visit"}}))
    before = [weight.detach().clone() for weight in last_convolution(trainer.network, head)]
    metrics = train(trainer)[1]
    assert metrics["train/loss_entropy"] > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, last_convolution(trainer.network, head), strict=True))
    predictor = predictor_of_checkpoint(trainer.output_folder_base)
    logits = predictor.predict_sliding_window_return_logits(torch.randn(4, 16, 30, 26))
    uncertainty = predictor.maps["uncertainty"]
    assert logits.shape == (4, 16, 30, 26)
    assert 0 <= uncertainty.min() < uncertainty.max() <= 1


def test_a_detached_head_on_decoder_stages_trains_itself_alone(trainer_for):
    network = trainer_for(model=STAGES | {"detached": True}).network
    torch.nn.init.normal_(network.head.last.weight)
    _, u = network(torch.randn(1, 4, 16, 16, 16), uncertainty=True)
    u.sum().backward()
    assert all(weight.grad is None for weight in network.backbone.parameters())
    assert all(weight.grad is not None for weight in network.head.parameters())


def test_the_map_of_a_residual_head_judges_the_decision_that_is_written(trainer_for):
    """Tiles may disagree: their probabilities of the region are averaged, and then stand against the joint decision."""
    trainer = trainer_for(**SHORT, model=RESIDUAL)
    train(trainer)
    with torch.no_grad():
        trainer.network.backbone.decoder.seg_layers[-1].weight[-1].normal_()
        trainer.network.residual.numbers.copy_(torch.tensor([0.4, -0.7, 0.9, 0.2]))
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    predictor, x = predictor_of_checkpoint(trainer.output_folder_base), 3 * torch.randn(4, 16, 20, 24)
    logits = predictor.predict_sliding_window_return_logits(x)[None].float()
    chosen = tumour_and_decision(logits.numpy(), "labels")[1][0, 0]
    weights = compute_gaussian((16, 16, 16), 1 / 8, 10, torch.float16, torch.device("cpu")).double().numpy()
    total, mass, own = np.zeros((16, 20, 24)), np.zeros((16, 20, 24)), []
    for y, z in itertools.product((0, 4), (0, 8)):
        tile = (slice(None), slice(y, y + 16), slice(z, z + 16))
        z_tile, u = outputs_of(predictor.network, x[(slice(None), *tile)][None])
        decided = tumour_and_decision(z_tile, "labels")[1][0, 0]
        own.append(np.mean(decided != chosen[tile]))
        failure = sigmoid(u[0, 0])
        total[tile] += weights * np.where(decided, 1 - failure, failure)
        mass[tile] += weights
    assert max(own) > 0.05, "some tiles disagree with the joint decision"
    p = total / mass
    expected = np.where(chosen, 1 - p, p)
    found = predictor.maps["uncertainty"].numpy()
    assert np.mean(np.abs(found - expected) > 2e-3) < 0.001


@pytest.mark.parametrize("source", ["cases", "visit"])
def test_entropy_and_the_difference_in_the_mask_are_means_over_its_voxels(trainer_for, source):
    """After an epoch, by NumPy: entropy of the map and the error, and their squared difference, where it is known."""
    loss = ONLY_ENTROPY | {"unc_weight": 0.7, "entropy_weight": 0.3, "unc_mean": "mask"}
    training = {"epochs": 2, "iterations_per_epoch": 10, "val_iterations_per_epoch": 1}
    trainer = trainer_for(training=training, loss=loss, memory={"source": source}, model={"deep_supervision": False})

    def stop(_epoch, _metrics):
        raise Stopped

    trainer.on_epoch = stop
    with pytest.raises(Stopped):
        train(trainer)
    batch = next(trainer.dataloader_train)
    logits, u = outputs_of(trainer.network, batch["data"])
    target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    labels = target.numpy()
    known = trainer.memories["training"].read(batch["keys"], batch["geometry"])
    where, error = (labels > 0) & (known.visited.numpy() > 0), known.values["error"].double().numpy()
    if source == "visit":
        where, error = labels > 0, ((logits.argmax(1)[:, None] > 0) != (labels > 0)).astype(float)
    p, e = sigmoid(u)[where], error[where]
    expected = {
        "unc_in_mask": np.mean((p - e) ** 2),
        "entropy": np.mean(-(e * np.log(p) + (1 - e) * np.log(1 - p))),
    }
    trainer.on_epoch_start()
    total = trainer.train_step(batch)["loss"]
    means = trainer._means.means()
    for name, value in expected.items():
        assert means[f"train/loss_{name}"] == pytest.approx(value, rel=1e-4)
    parts = means["train/loss_seg"] + 0.7 * expected["unc_in_mask"] + 0.3 * expected["entropy"]
    assert total == pytest.approx(parts, rel=1e-4)
    assert "train/loss_unc" not in means


def visit_of(network, x, outputs):
    """Return a visit with these images; the reference is not asked for."""
    with torch.no_grad():
        logits = network(x)
    logits = logits[0] if isinstance(logits, list) else logits
    labels = logits.argmax(1, keepdim=True)
    predicted = torch.cat([torch.isin(labels, torch.tensor(numbers)) for numbers in outputs.regions], dim=1)
    return Visit(
        x,
        logits,
        predicted,
        torch.zeros_like(predicted),
        torch.zeros_like(logits[:, :1]),
        {"union": predicted[:, :1] | True},
        "union",
    )


def test_members_doubt_the_decision_that_the_network_takes(trainer_for):
    """|mean p of the members − decision|, p from an independent softmax."""
    own, *others = (trainer_for(name, training={"seed": seed}) for seed, name in enumerate(("own", "first", "second")))
    x = 3 * torch.randn(2, 4, 16, 16, 16)
    visit = visit_of(own.network.eval(), x, own.outputs)
    found = Members([trainer.network for trainer in others], own.outputs).expected_error(visit)
    p = np.mean([tumour_and_decision(outputs_of(t.network, x)[0], "labels")[0] for t in others], axis=0)
    decision = visit.predicted[:, :1].numpy()
    np.testing.assert_allclose(found.values["error"].numpy(), np.abs(p - decision), rtol=1e-4, atol=1e-5)
    assert found.visited.all()


def test_cross_fitted_failures_judge_the_decision_that_the_network_takes(trainer_for):
    """Without a tree to add, what a fold has learnt is calibrated p: a formula of margin and side."""
    trainer = trainer_for()
    x = 3 * torch.randn(2, 4, 16, 16, 16)
    visit = visit_of(trainer.network.eval(), x, trainer.outputs)
    numbers = (0.4, -0.8, 0.6, -0.3)
    others = Calibration(9, 9, 9, 9)  # of the other regions
    learnt = FailureModel(
        (Calibration(*numbers), others, others), Failures(trees=1), Grid(4, (16,) * 3, (1.0,) * 3), trees=("",) * 3
    )
    found = CrossFitted(learnt, trainer.outputs).expected_error(visit).values["error"].numpy()
    p, chosen = tumour_and_decision(visit.logits.double().numpy(), "labels")
    margin = np.where(chosen, 1, -1) * np.log(p / (1 - p)).clip(-9.2, 9.2)
    a, b, c, d = numbers
    np.testing.assert_allclose(found, sigmoid(a + b * margin + chosen * (c + d * margin)), rtol=1e-4, atol=1e-5)


def test_a_source_of_another_run_is_never_replaced_by_the_memory(trainer_for):
    """nnU-Net's own command knows no other run: it must not train something else in silence."""
    trainer = trainer_for(**SHORT, memory={"source": "members", "run": "other"})
    with pytest.raises(RuntimeError, match=r"memory\.source: members comes from another run"):
        train(trainer)


def test_the_final_weights_are_the_mean_over_the_steps_of_the_last_epochs(trainer_for):
    training = {"epochs": 3, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1, "averaged_epochs": 2}
    trainer = trainer_for(training=training)
    steps, descend = [], trainer.descend

    def remember():
        descend()
        steps.append([weight.detach().double().clone() for weight in trainer.network.parameters()])

    trainer.descend = remember
    train(trainer)
    assert len(steps) == 6
    with contextlib.redirect_stdout(None):
        content = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", weights_only=False)
    names = [name for name, _ in trainer.network.named_parameters()]
    for number, name in enumerate(names):
        expected = sum(step[number] for step in steps[2:]) / 4
        torch.testing.assert_close(content["network_weights"][name].double(), expected, rtol=1e-5, atol=1e-7)
    assert any(
        not torch.allclose(content["network_weights"][n].double(), s) for n, s in zip(names, steps[-1], strict=True)
    )


def test_a_resumed_training_ends_with_the_same_mean(trainer_for):
    training = {"epochs": 4, "iterations_per_epoch": 3, "checkpoint_every": 2, "averaged_epochs": 3}
    sections = {"training": training, "model": RESIDUAL | STAGES, "memory": {"source": "visit"}, "loss": ONLY_ENTROPY}
    whole = trainer_for("whole", **sections)
    train(whole)
    second = train_in_two_parts(trainer_for, 2, **sections)
    torch.testing.assert_close(whole.network.state_dict(), second.network.state_dict(), rtol=0, atol=0)
