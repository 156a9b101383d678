"""The trainer on real preprocessed phantoms: every choice of the experiment trains, and a resume is exact."""

import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from support.training import SHORT, predictor_of_checkpoint, train, train_in_two_parts
from uncseg.method.training.epoch_names import epoch_metric_names

THREE_STAGES = {"plan": {"max_stages": 3}}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"output": "regions"}, "loss": {"weight_ce": None, "warmup_epochs": 0}},
        {"model": {"uncertainty": False}},
        {"model": {"deep_supervision": False}, **THREE_STAGES},
        {"loss": {"cancer_mask": "union", "output_l2": 0.01, "warmup_epochs": 1}, **THREE_STAGES},
        {"training": {**SHORT["training"], "loader_processes": 1}},
        {
            "plan": {"configuration": "2d", "patch_size": [16, 16], "batch_size": 4},
            "training": {**SHORT["training"], "val_iterations_per_epoch": 20},  # slices are seldom seen twice
        },
        {"plan": {"preset": "resenc_m", "max_stages": 3}},
        # slices over three times as far apart as voxels within them: nnU-Net's dummy 2D augmentation
        {"plan": {"target_spacing_mm": [3.2, 1.0, 1.0], "patch_size": [8, 32, 32], "max_stages": 3}},
        {"training": {**SHORT["training"], "precision": "bf16", "accumulate": 2}},
    ],
    ids=[
        "labels",
        "regions",
        "baseline",
        "no deep supervision",
        "union",
        "loader process",
        "2d",
        "resenc",
        "anisotropic",
        "bf16 in parts",
    ],
)
def test_every_choice_trains_and_reports(trainer_for, sections):
    trainer = trainer_for(**{**SHORT, **sections})
    epochs = train(trainer)
    _, dummy_2d, _, _ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert dummy_2d == ("target_spacing_mm" in sections.get("plan", {}))
    assert sorted(epochs) == [0, 1]
    last = epochs[1]
    head = sections.get("model", {}).get("uncertainty", True)
    assert math.isfinite(last["train/loss"])
    for protocol in ("reference", "union"):
        assert (f"uncertainty/{protocol}/rmsd_ema/uncertainty" in last) == head
        for estimator in (
            "variance_stable",
            "var1shot",
            "min_p",
            "one_minus_p",
            "one_minus_max",
            "border_distance",
            "oracle",
        ):
            assert f"uncertainty/{protocol}/rmsd_ema/{estimator}" in last
        assert 0 <= last[f"uncertainty/{protocol}/rmsd_ema/one_minus_p"] <= 1
        assert 0 < last[f"uncertainty/memory/visited_share_{protocol}"] <= 1
    assert 0 <= last["val_patch/failure_rate_wt"] <= 1
    names = set(epoch_metric_names(trainer.experiment))
    assert {name for name in last if not name.endswith("/oracle")} <= names
    assert names - set(last) <= {name for name in names if "corr_ema" in name}  # where nothing varies


def test_memory_is_read_before_it_is_written(trainer_for):
    """A single validation step has nothing to compare with: written first, it would correlate with itself."""
    training = {"epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1}
    sections = {"training": training, "loss": {"warmup_epochs": 0}}
    metrics = train(trainer_for(**sections))[0]
    assert metrics["uncertainty/memory/visited_share_reference"] == 0
    assert "uncertainty/reference/rmsd_ema/one_minus_p" not in metrics
    assert "uncertainty/memory/mean_error_train_reference" not in metrics


def test_resumed_training_ends_with_the_same_weights_and_memories(trainer_for):
    sections = {"training": {"epochs": 4, "iterations_per_epoch": 3, "checkpoint_every": 2}}
    whole = trainer_for("whole", **sections)
    expected = train(whole)

    second = train_in_two_parts(trainer_for, 2, **sections)
    found = second.epochs
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for side in ("training", "validation"):
        a, b = (trainer.memories[side].state()["cases"] for trainer in (whole, second))
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert expected[3].keys() == found[3].keys()
    timeless = [name for name in expected[3] if "seconds" not in name]
    np.testing.assert_array_equal([expected[3][n] for n in timeless], [found[3][n] for n in timeless])


def test_no_half_written_checkpoint_is_left(trainer_for):
    trainer = trainer_for(**SHORT)
    train(trainer)
    files = {file.name for file in Path(trainer.output_folder).iterdir()}
    assert not [name for name in files if name.startswith(".part")]
    assert {"checkpoint_final.pth", "resume_epoch_0002.pt"} <= files
    assert "checkpoint_latest.pth" not in files


def test_diverged_training_stops(trainer_for):
    trainer = trainer_for(**SHORT)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="initial_lr"):
        train(trainer)


@pytest.mark.parametrize("mirroring", [False, True])
def test_predictor_gives_nnunets_segmentation_and_a_map(trainer_for, mirroring):
    trainer = trainer_for(**SHORT)
    train(trainer)
    x = torch.randn(4, 20, 30, 26)
    ours = predictor_of_checkpoint(trainer.output_folder_base, use_mirroring=mirroring)
    theirs = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    managers = ours.plans_manager, ours.configuration_manager
    about = (ours.dataset_json, ours.trainer_name, ours.allowed_mirroring_axes)
    with contextlib.redirect_stdout(None):
        theirs.manual_initialization(ours.network, *managers, None, *about)
        logits = ours.predict_sliding_window_return_logits(x)
        expected = theirs.predict_sliding_window_return_logits(x)
    assert (logits.argmax(0) == expected.argmax(0)).float().mean() > 0.9999
    uncertainty = ours.maps["uncertainty"]
    assert uncertainty.shape == x.shape[1:]
    assert uncertainty.dtype == torch.float32
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1


def test_map_of_a_single_tile_is_the_sigmoid_of_one_pass(trainer_for):
    trainer = trainer_for(**SHORT)
    train(trainer)
    predictor, x = predictor_of_checkpoint(trainer.output_folder_base), torch.randn(4, 16, 16, 16)
    predictor.predict_sliding_window_return_logits(x)
    with torch.no_grad():
        _, u = predictor.network(x[None], uncertainty=True)
    torch.testing.assert_close(predictor.maps["uncertainty"], u[0, 0].sigmoid(), rtol=1e-5, atol=1e-6)
