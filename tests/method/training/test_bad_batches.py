"""Batches from which nothing can be learned: the training goes on, and no metric is NaN."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from support.training import SHORT, train
from uncseg.dataset.phantom import write_phantoms


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
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0)
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
