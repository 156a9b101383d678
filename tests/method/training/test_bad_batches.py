"""Batches from which nothing can be learned: the training goes on, and no metric is NaN."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from support.training import SHORT, train, train_in_two_parts
from uncseg.dataset.phantom import write_phantoms
from uncseg.method.training.batches import TRAINING, LoaderWithGeometry
from uncseg.tasks.built_in_tasks import paper_task


class Changed:
    """A stream that changes its batches."""

    def __init__(self, stream, change):
        self.stream, self.change, self.number = stream, change, 0

    def __next__(self):
        batch = next(self.stream)
        self.number += 1
        self.change(self.number, batch)
        return batch

    def __getattr__(self, name):
        return getattr(self.stream, name)


def with_batches(trainer, change):
    original = trainer.get_dataloaders
    trainer.get_dataloaders = lambda: [Changed(stream, change) for stream in original()]
    return trainer


def targets(batch):
    return batch["target"] if isinstance(batch["target"], list) else [batch["target"]]


def with_nan(number, batch):
    if number == 2:
        batch["data"][0, 0, 3, 3, 3] = math.nan


def without_tumour(_number, batch):
    for target in targets(batch):
        target.zero_()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("change", [with_nan, without_tumour])
@pytest.mark.parametrize("mask", ["reference", "union"])
def test_training_survives_unusable_batches(trainer_for, change, mask, precision):
    sections = {"loss": {"cancer_mask": mask, "warmup_epochs": 0}}
    sections["training"] = {**SHORT["training"], "precision": precision}
    trainer = with_batches(trainer_for(**sections), change)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    epochs = train(trainer)
    assert sorted(epochs) == [0, 1]
    for metrics in epochs.values():
        assert "train/loss" in metrics
        assert all(math.isfinite(value) for value in metrics.values())
    after = list(trainer.network.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    for memory in trainer.memories.values():
        assert all(torch.isfinite(case.values).all() for case in memory.cases.values())
    losses = [*trainer.logger.get_value("train_losses", None), *trainer.logger.get_value("val_losses", None)]
    assert np.isfinite(losses).all()


def test_constant_error_gives_no_correlation_term(trainer_for):
    trainer = trainer_for(**SHORT, loss={"warmup_epochs": 0})
    for memory in trainer.memories.values():
        read = memory.read

        def constant(keys, geometries, read=read):
            reading = read(keys, geometries)
            for value in reading.values.values():
                value.fill_(0.5)
            reading.visited.fill_(1)
            return reading

        memory.read = constant
    metrics = train(trainer)[1]
    assert metrics["train/loss_one_minus_corr"] == 0  # left out: no constant is added
    assert metrics["train/loss_rmsd"] > 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_case_without_tumour_and_cases_smaller_than_the_patch_train(trainer_for, tmp_path):
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0, task=paper_task())
    for number in (0, 1):
        case = f"BraTS-GLI-{number:05d}-000"
        file = tmp_path / "cases" / case / f"{case}-seg.nii.gz"
        image = sitk.ReadImage(str(file))
        empty = sitk.GetImageFromArray(np.zeros_like(sitk.GetArrayFromImage(image)))
        empty.CopyInformation(image)
        sitk.WriteImage(empty, str(file))
        for oracle in (tmp_path / "cases").rglob(f"{case}*-q.nii.gz"):
            oracle.unlink()
    sections = {"plan": {"patch_size": [32, 32, 32]}, "dataset": {"path": str(tmp_path / "cases")}}
    epochs = train(trainer_for(**SHORT, **sections))
    assert sorted(epochs) == [0, 1]
    assert all(math.isfinite(value) for metrics in epochs.values() for value in metrics.values())


SKIPPED, SCALED, LEFT_OUT = "train/skipped_steps", "train/skipped_steps_loss_scale", "val_patch/skipped_batches"


def skipped(epochs, name):
    return [epochs[epoch][name] for epoch in sorted(epochs)]


def test_nothing_is_skipped_in_a_training_without_bad_batches(trainer_for):
    epochs = train(trainer_for(**SHORT))
    assert [skipped(epochs, name) for name in (SKIPPED, SCALED, LEFT_OUT)] == [[0, 0]] * 3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_skipped_batches_are_counted_per_epoch_and_their_cases_named(trainer_for, accumulate, precision, capsys):
    named = {}

    def in_two_epochs(number, batch):
        if number in (2, 4, 6):  # of three per epoch: one of the first, two of the second
            batch["data"][1, 0, 3, 3, 3] = math.inf
            named.setdefault(tuple(batch["keys"]), number)

    training = {**SHORT["training"], "accumulate": accumulate, "precision": precision}
    trainer = with_batches(trainer_for(training=training), in_two_epochs)
    trainer.run_training()
    epochs = trainer.epochs
    unusable = [a - b for a, b in zip(skipped(epochs, SKIPPED), skipped(epochs, SCALED), strict=True)]
    assert unusable == [1, 2]
    assert skipped(epochs, LEFT_OUT) == [1, 2]
    if precision == "fp32":
        assert skipped(epochs, SCALED) == [0, 0]
    printed = capsys.readouterr().out
    for keys in named:
        assert f"{keys[0]}; {keys[1]}, whose images are not" in printed


def test_a_loss_scale_that_is_too_large_is_told_apart(trainer_for):
    training = {**SHORT["training"], "iterations_per_epoch": 6, "precision": "fp16"}
    trainer = trainer_for(training=training)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-12)
    epochs = train(trainer)
    assert skipped(epochs, SKIPPED) == skipped(epochs, SCALED)
    assert skipped(epochs, SCALED)[0] > 0
    assert skipped(epochs, SCALED)[1] == 0
    assert trainer.grad_scaler.get_scale() < 2.0**40


def test_a_training_that_is_resumed_counts_on(trainer_for, monkeypatch):
    original = LoaderWithGeometry.__getitem__

    def with_nan_by_index(self, index):
        index, batch = original(self, index)
        if index in (1, 4, 5) and self.key[-1] == TRAINING:
            batch["data"][:] = math.nan
        return index, batch

    monkeypatch.setattr(LoaderWithGeometry, "__getitem__", with_nan_by_index)
    training = {**SHORT["training"], "epochs": 3, "checkpoint_every": 1}
    whole = train(trainer_for("whole", training=training))
    assert skipped(whole, SKIPPED) == [1, 2, 0]
    resumed = train_in_two_parts(trainer_for, 1, training=training).epochs
    assert skipped(resumed, SKIPPED) == [2, 0]


@pytest.mark.parametrize("output", ["labels", "regions"])
def test_a_bad_validation_batch_changes_no_metric_of_the_others(trainer_for, output):
    """As if there were one batch less: sums, Dice, loss and the memory hold the other batches alone."""

    def ending(number, batch):
        if number == 3:
            batch["data"][0, 1] = math.nan

    def only_validation(trainer):
        original = trainer.get_dataloaders

        def streams():
            training, validation = original()
            return [training, Changed(validation, ending)]

        trainer.get_dataloaders = streams
        return trainer

    weights = {} if output == "labels" else {"weight_ce": None}
    sections = {"model": {"output": output}, "loss": {"warmup_epochs": 0, **weights}}
    one = {"epochs": 1, "iterations_per_epoch": 2}
    three = only_validation(
        trainer_for("three", training={**SHORT["training"], **one, "val_iterations_per_epoch": 3}, **sections)
    )
    two = trainer_for("two", training={**SHORT["training"], **one, "val_iterations_per_epoch": 2}, **sections)
    with_bad, without = train(three)[0], train(two)[0]
    assert with_bad.pop(LEFT_OUT) == 1
    assert without.pop(LEFT_OUT) == 0
    results = [{name: value for name, value in own.items() if "system/" not in name} for own in (with_bad, without)]
    assert results[0] == results[1]
    whole = (slice(0, 28), slice(0, 28), slice(0, 28))
    memories = [trainer.memories["validation"] for trainer in (three, two)]
    assert set(memories[1].cases) <= set(memories[0].cases)
    for case in memories[0].cases:
        readings = [memory.read_box(case, whole) for memory in memories]
        assert torch.equal(*(reading.visited for reading in readings))
        for name in ("error", "variance"):
            assert torch.equal(*(reading.values[name] for reading in readings))


def test_an_epoch_without_any_finite_loss_ends_the_training(trainer_for):
    def nan(_number, batch):
        batch["data"][:] = math.nan

    trainer = with_batches(trainer_for(**SHORT), nan)
    with pytest.raises(FloatingPointError, match="no loss of epoch 0 was finite"):
        train(trainer)
    assert trainer.epochs == {}


def test_an_epoch_without_any_finite_validation_batch_has_no_dice(trainer_for):
    """Its predictions are not taken for "no tumour", whose Dice would be 0; the next epoch is as ever."""
    trainer = trainer_for(**SHORT)
    original = trainer.get_dataloaders

    def nan(number, batch):
        if number <= 3:
            batch["data"][:] = math.nan

    def streams():
        training, validation = original()
        return [training, Changed(validation, nan)]

    trainer.get_dataloaders = streams
    epochs = train(trainer)
    assert skipped(epochs, LEFT_OUT) == [3, 0]
    assert skipped(epochs, SKIPPED) == [0, 0]
    assert not [name for name in epochs[0] if name.startswith("val_patch/") and name != LEFT_OUT]
    assert 0 <= epochs[1]["val_patch/dice_mean"] <= 1
