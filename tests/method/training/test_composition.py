"""How parts are put together: the loss of a step, the tiles of a map, the mean of folds, each by another formula.

Every weight differs, so that one that is swapped, dropped or applied to the wrong part changes the result.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from scipy import ndimage

from support.training import SHORT, Stopped, predictor_of_checkpoint, train
from uncseg.method.inference.fold_average import average_folds
from uncseg.method.inference.model_folder import open_model_folder
from uncseg.method.inference.native_space import GridPrediction

CLASSES = (0.2, 1.0, 0.4, 0.7)
WEIGHTS = {"unc_weight": 31.0, "rmsd_weight": 0.7, "corr_weight": 0.11}
"""The squared difference is a mean over the patch, and small: its weight is large, so that it shows."""


def softmax(logits):
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def segmentation_loss(logits, labels):
    """Dice and class-weighted cross-entropy, as nnU-Net adds them."""
    dice = MemoryEfficientSoftDiceLoss(apply_nonlin=lambda x: x.softmax(1), batch_dice=False, do_bg=False, smooth=1e-5)
    chance = np.take_along_axis(softmax(logits), labels, axis=1)
    weights = np.array(CLASSES)[labels]
    cross_entropy = -(weights * np.log(chance)).sum() / weights.sum()
    return float(dice(torch.from_numpy(logits), torch.from_numpy(labels))) + cross_entropy


def uncertainty_terms(u, error, weights):
    """The squared difference over the patch, the mean RMSD, and one minus the mean correlation."""
    rmsd, one_minus_corr = [], []
    for own, target, mask in zip(u, error, weights, strict=True):
        inside = mask > 0
        if inside.sum() >= 50:
            rmsd.append(np.sqrt(np.mean((own[inside] - target[inside]) ** 2)))
            if min(own[inside].std(), target[inside].std()) >= 1e-4:
                one_minus_corr.append(1 - np.corrcoef(own[inside], target[inside])[0, 1])
    assert rmsd
    assert one_minus_corr
    return np.mean(((u - error) * weights) ** 2), np.mean(rmsd), np.mean(one_minus_corr)


@pytest.mark.parametrize("mask", ["reference", "union"])
def test_the_loss_of_a_step_is_that_of_the_formula(trainer_for, mask):
    loss = {**WEIGHTS, "weight_ce": list(CLASSES), "cancer_mask": mask, "warmup_epochs": 2}
    training = {"epochs": 2, "iterations_per_epoch": 10, "val_iterations_per_epoch": 1}
    trainer = trainer_for(training=training, loss=loss, model={"deep_supervision": False}, plan={"max_stages": 3})

    def stop(_epoch, _metrics):
        raise Stopped  # after an epoch, which has filled the memory

    trainer.on_epoch = stop
    with pytest.raises(Stopped):
        train(trainer)
    trainer.current_epoch = 1  # halfway through the warm-up
    batch = next(trainer.dataloader_train)
    with torch.no_grad():
        z, u = (tensor.double().numpy() for tensor in trainer.network(batch["data"], uncertainty=True))
    known = trainer.memories["training"].read(batch["keys"], batch["geometry"])
    error, visited = known.values["error"].double().numpy(), known.visited.double().numpy()
    target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    labels = target.numpy().astype(np.int64)
    reference, predicted = labels > 0, softmax(z).argmax(1)[:, None] > 0
    where = reference
    if mask == "union":
        where = np.stack([[ndimage.binary_dilation(m[0], np.ones((5, 5, 5)))] for m in reference | predicted])
    parts = uncertainty_terms(1 / (1 + np.exp(-u)), error, where * visited)
    weighted = sum(weight * part for weight, part in zip(WEIGHTS.values(), parts, strict=True))
    expected = segmentation_loss(z, labels) + 1 / 2 * weighted
    assert trainer.train_step(batch)["loss"] == pytest.approx(expected, rel=1e-4)


def test_tiles_of_a_map_are_weighted_by_how_near_their_middle_is(trainer_for):
    trainer = trainer_for(**SHORT)
    train(trainer)
    predictor, x = predictor_of_checkpoint(trainer.output_folder_base), torch.randn(4, 16, 20, 24)
    predictor.predict_sliding_window_return_logits(x)
    weights = compute_gaussian((16, 16, 16), 1 / 8, 10, torch.float16, torch.device("cpu")).double().numpy()
    total, mass = np.zeros((16, 20, 24)), np.zeros((16, 20, 24))
    for y, z in itertools.product((0, 4), (0, 8)):
        box = (slice(None), slice(y, y + 16), slice(z, z + 16))
        with torch.no_grad():
            _, u = predictor.network(x[(slice(None), *box)][None], uncertainty=True)
        total[box] += weights * u[0, 0].sigmoid().double().numpy()
        mass[box] += weights
    np.testing.assert_allclose(predictor.maps["uncertainty"].numpy(), total / mass, atol=1e-3)


def test_folds_are_averaged_as_probabilities(trainer_for):
    trainer = trainer_for(**SHORT)
    train(trainer)
    model = open_model_folder(Path(trainer.output_folder_base))
    shape, random = (6, 7, 8), np.random.default_rng(0)
    logits = 4 * random.normal(size=(2, 4, *shape))
    box = [[0, n] for n in shape]
    spacing = [model.configuration_manager.spacing[axis] for axis in model.plans_manager.transpose_backward]
    properties = {
        "spacing": spacing,
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": box,
    }
    averaged = average_folds(model, [GridPrediction(own.astype(np.float32)) for own in logits], properties)
    chance = softmax(logits).mean(0)
    back = model.plans_manager.transpose_backward
    expected = chance[1:].sum(0).transpose(back)
    np.testing.assert_allclose(averaged.p_main, expected, atol=1e-4)
    assert (averaged.labels == chance.argmax(0).transpose(back)).all()
    spread = softmax(logits)[:, 1:].sum(1).std(0).transpose(back)
    np.testing.assert_allclose(averaged.between_folds, spread, atol=1e-4)
    joint = softmax(logits.mean(0)[None])[0]
    assert (chance.argmax(0) != joint.argmax(0)).any(), "the mean of logits would decide otherwise"
