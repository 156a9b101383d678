"""The trainer on real preprocessed phantoms: every choice of the experiment trains, and a resume is exact."""

import contextlib
import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from uncseg.cluster.prepare import prepare
from uncseg.config import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.prepare import nnunet_environment
from uncseg.files import read_json
from uncseg.method.predictor import UncertaintyPredictor
from uncseg.method.settings import TrainerSettings
from uncseg.method.trainer import UncertaintyTrainer


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainer") / "phantoms"
    write_phantoms(folder, cases=4, size=28, seed=0)
    return folder


@pytest.fixture
def trainer_for(local_ray, experiment_file, phantoms, tmp_path, monkeypatch):
    """A trainer of fold 0 for the small experiment with some fields replaced."""

    def make(results="results", **sections):
        storage = {"path": str(phantoms.with_name("prepared"))}  # prepared once for all tests
        experiment = load_experiment(experiment_file(phantoms, storage=storage, **sections))
        prepared = prepare(experiment)
        for name, value in nnunet_environment(prepared, tmp_path / results).items():
            monkeypatch.setenv(name, value)
        plans = TrainerSettings.of(experiment).into_plans(read_json(prepared.plans))
        with contextlib.redirect_stdout(None):
            trainer = UncertaintyTrainer(
                copy.deepcopy(plans),
                experiment.plan.configuration,
                0,
                read_json(prepared.dataset / "dataset.json"),
                torch.device("cpu"),
            )
            trainer.initialize()
        trainer.epochs = {}
        trainer.on_epoch = trainer.epochs.__setitem__
        return trainer

    return make


def train(trainer):
    with contextlib.redirect_stdout(None):
        trainer.run_training()
    return trainer.epochs


SHORT = {"training": {"epochs": 2, "iterations_per_epoch": 3, "val_iterations_per_epoch": 3}}
THREE_STAGES = {"plan": {"max_stages": 3}}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"head": "regions"}, "loss": {"weight_ce": None, "warmup_epochs": 0}},
        {"model": {"uncertainty": False}},
        {"model": {"deep_supervision": False}, **THREE_STAGES},
        {"loss": {"cancer_mask": "union", "output_l2": 0.01, "warmup_epochs": 1}, **THREE_STAGES},
        {"training": {**SHORT["training"], "loader_processes": 1}},
        {"plan": {"configuration": "2d", "patch_size": [16, 16], "batch_size": 4}},
    ],
    ids=["labels", "regions", "baseline", "no deep supervision", "union", "loader process", "2d"],
)
def test_every_choice_trains_and_reports(trainer_for, sections):
    epochs = train(trainer_for(**{**SHORT, **sections}))
    assert sorted(epochs) == [0, 1]
    last = epochs[1]
    head = sections.get("model", {}).get("uncertainty", True)
    assert math.isfinite(last["train/loss"])
    for protocol in ("reference", "union"):
        assert (f"uncertainty/uncertainty/{protocol}/corr_ema" in last) == head
        for estimator in ("variance_stable", "var1shot", "one_minus_p", "one_minus_max", "border_distance", "oracle"):
            assert f"uncertainty/{estimator}/{protocol}/corr_ema" in last
        assert 0 <= last[f"uncertainty/one_minus_p/{protocol}/rmsd_ema"] <= 1
        assert 0 < last[f"memory/visited_share_{protocol}"] <= 1
    assert 0 <= last["val_patch/failure_rate_wt"] <= 1


def test_the_first_epochs_memory_is_read_before_it_is_written(trainer_for):
    """A single validation step has nothing to compare with: written first, it would correlate with itself."""
    training = {"epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1}
    sections = {"training": training, "loss": {"warmup_epochs": 0}}
    metrics = train(trainer_for(**sections))[0]
    assert metrics["memory/visited_share_reference"] == 0
    assert math.isnan(metrics["uncertainty/one_minus_p/reference/rmsd_ema"])
    assert math.isnan(metrics["memory/mean_error_train_reference"])


def test_a_resumed_training_ends_with_the_same_weights_and_memory(trainer_for):
    sections = {"training": {"epochs": 4, "iterations_per_epoch": 3, "checkpoint_every": 2}}
    whole = trainer_for("whole", **sections)
    expected = train(whole)

    class Stopped(Exception):
        pass

    first = trainer_for("parts", **sections)

    def stop(epoch, metrics):
        if epoch == 2:
            raise Stopped

    first.on_epoch = stop
    with pytest.raises(Stopped):
        train(first)
    second = trainer_for("parts", **sections)
    second.load_checkpoint(str(second.output_folder) + "/checkpoint_latest.pth")
    assert second.current_epoch == 2
    found = train(second)
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for side in ("training", "validation"):
        a, b = whole.memories[side].state()["cases"], second.memories[side].state()["cases"]
        assert a.keys() == b.keys()
        for case in a:
            torch.testing.assert_close(a[case], b[case], rtol=0, atol=0)
    timeless = [name for name in expected[3] if "seconds" not in name]
    np.testing.assert_array_equal([expected[3][n] for n in timeless], [found[3][n] for n in timeless])


def test_no_half_written_checkpoint_is_left(trainer_for):
    trainer = trainer_for(**SHORT)
    train(trainer)
    files = {file.name for file in Path(trainer.output_folder).iterdir()}
    assert not [name for name in files if name.startswith(".part")]
    assert {"checkpoint_final.pth", "error_memory_epoch_0002.pt"} <= files
    assert "checkpoint_latest.pth" not in files


def test_a_diverged_training_stops(trainer_for):
    trainer = trainer_for(**SHORT)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="initial_lr"):
        train(trainer)


@pytest.mark.parametrize("mirroring", [False, True])
def test_predictor_gives_nnunets_segmentation_and_a_map_beside_it(trainer_for, mirroring):
    trainer = trainer_for(**SHORT)
    train(trainer)
    x = torch.randn(4, 20, 30, 26)
    with contextlib.redirect_stdout(None):
        ours = UncertaintyPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
        ours.load_fold(Path(trainer.output_folder_base), 0, "3d_fullres")
        theirs = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
        theirs.manual_initialization(
            ours.network,
            ours.plans_manager,
            ours.configuration_manager,
            None,
            ours.dataset_json,
            ours.trainer_name,
            ours.allowed_mirroring_axes,
        )
        logits = ours.predict_sliding_window_return_logits(x)
        expected = theirs.predict_sliding_window_return_logits(x)
    assert (logits.argmax(0) == expected.argmax(0)).float().mean() > 0.9999
    assert ours.uncertainty.shape == x.shape[1:]
    assert ours.uncertainty.dtype == torch.float32
    assert 0 <= ours.uncertainty.min() <= ours.uncertainty.max() <= 1


def test_the_map_is_the_mean_of_the_tiles_sigmoids(trainer_for):
    """One tile covers the whole image: the map is sigmoid(u) of a single forward pass."""
    trainer = trainer_for(**SHORT)
    train(trainer)
    with contextlib.redirect_stdout(None):
        predictor = UncertaintyPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.load_fold(Path(trainer.output_folder_base), 0, "3d_fullres")
        x = torch.randn(4, 16, 16, 16)
        predictor.predict_sliding_window_return_logits(x)
        with torch.no_grad():
            _, u = predictor.network(x[None], uncertainty=True)
    torch.testing.assert_close(predictor.uncertainty, u[0, 0].sigmoid(), rtol=1e-5, atol=1e-6)
