"""Error networks: the judged network stays as it is, its failures are learned, and the checkpoint is all they need."""

import copy
import shutil

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from scipy.stats import rankdata
from torch import nn

from support.training import predictor_of_checkpoint
from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.dataset.preparation import nnunet_environment
from uncseg.layout import RunFolder
from uncseg.method.network.error_network import ErrorNetwork
from uncseg.method.training.epoch_names import epoch_metric_names
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.fold_worker import train_fold
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.tracking.spool import read_history

STEPS = {"epochs": 2, "iterations_per_epoch": 3, "val_iterations_per_epoch": 3}
FLAT = {
    "plan": {"configuration": "2d", "patch_size": [16, 16], "batch_size": 4, "max_stages": 3},
    "training": {**STEPS, "val_iterations_per_epoch": 20},  # slices are seldom seen twice
}
REGIONS = {"output": "regions"}
NO_WEIGHTS = {"loss": {"weight_ce": None}}


@pytest.fixture
def task_for(local_ray, experiment_file, four_cases, tmp_path, monkeypatch):
    """Fold 0 of an experiment, ready for a worker; the runs share a folder."""

    def make(name, **sections):
        sections = {"training": STEPS, **sections}
        experiment = load_experiment(experiment_file(four_cases, **sections)).model_copy(update={"name": name})
        prepared = prepare_cases(experiment)
        run = RunFolder(tmp_path / "runs" / name)
        for variable, value in {**nnunet_environment(prepared, run.results), "nnUNet_n_proc_DA": "0"}.items():
            monkeypatch.setenv(variable, value)  # the worker sets them for its process
        run.root.mkdir(parents=True, exist_ok=True)
        save_experiment(experiment, run.experiment)
        return FoldRequest(experiment, prepared, run, 0, cpus=1)

    return make


def finished(task):
    """Let the worker train the fold to its end; return the metrics by epoch."""
    train_fold(task, lambda _figures: None)
    history = read_history(task.run.spool, 0)
    assert history.state == "finished", history.message
    return {epoch: record.metrics for epoch, record in history.epochs.items()}


def weights(task):
    content = torch.load(task.run.final_checkpoint(0), weights_only=False)
    return content["network_weights"]


def predict(task, x):
    predictor = predictor_of_checkpoint(task.run.model)
    return predictor.predict_sliding_window_return_logits(x), predictor.maps.get("uncertainty")


@pytest.mark.parametrize("kind", ["features", "image_and_prediction"])
@pytest.mark.parametrize(
    ("judged", "shared"),
    [
        ({"uncertainty": False}, {}),
        ({}, {}),
        (REGIONS, NO_WEIGHTS),
        ({}, FLAT),
        ({"detached": True}, {"plan": {"preset": "resenc_m", "max_stages": 3}}),
        ({"head": "decoder_stages", "residual": True}, {}),
    ],
    ids=["baseline", "head", "regions", "2d", "resenc, detached head", "head on decoder stages"],
)
def test_segmentation_stays_as_it_was(task_for, judged, shared, kind):
    first = task_for("judged", model=judged, **shared)
    finished(first)
    model = {"error_network": {"run": "judged", "kind": kind}, "output": judged.get("output", "labels")}
    second = task_for("judging", model=model, **shared)
    history = finished(second)
    before, after = weights(first), weights(second)
    inside = {name.removeprefix("backbone."): value for name, value in after.items() if name.startswith("backbone.")}
    plain = not judged.get("uncertainty", True) or "head" in judged  # the output layer is nnU-Net's
    of_head = ("head.", "residual.")
    for name, value in before.items():
        if name.startswith(of_head):
            continue
        name = name.removeprefix("backbone.")
        if plain or "seg_layers" not in name:
            assert torch.equal(inside[name], value), name
        elif "output" in judged:
            assert torch.equal(inside[name], value[:3]), name
        else:  # the head's network has no output for the background, whose logit is 0
            assert torch.equal(inside[name][1:], value[:3]), name
            assert not inside[name][0].any()
    shutil.rmtree(first.run.root / "spool")
    x = torch.randn(4, 16, 30, 26)
    expected, _ = predict(first, x)
    shutil.rmtree(first.run.root)
    logits, uncertainty = predict(second, x)
    torch.testing.assert_close(logits, expected, rtol=2e-3, atol=2e-3)  # nnU-Net keeps them in half precision
    assert uncertainty.shape == x.shape[1:]
    assert 0 <= uncertainty.min() < uncertainty.max() <= 1
    names, last = set(epoch_metric_names(second.experiment)), history[1]
    assert {"train/loss_error", "train/loss_seg", "uncertainty/union/rmsd_ema/uncertainty"} <= set(last)
    assert last["train/loss"] == last["train/loss_error"]
    assert {name for name in last if not name.endswith("/oracle")} <= names
    assert names - set(last) <= {name for name in names if "corr_ema" in name}


@pytest.mark.parametrize("kind", ["features", "image_and_prediction"])
def test_resumed_training_ends_as_an_undisturbed_one_without_the_judged_run(task_for, kind):
    first = task_for("judged", model={"uncertainty": False})
    finished(first)
    longer = {
        "model": {"error_network": {"run": "judged", "kind": kind}},
        "training": {**STEPS, "epochs": 4, "checkpoint_every": 2},
    }
    whole = task_for("whole", **longer)
    finished(whole)

    def stop(figures):
        if figures["epoch"] == 2:
            raise RuntimeError("stopped")

    parts = task_for("parts", **longer)
    train_fold(parts, stop)
    assert read_history(parts.run.spool, 0).state == "failed"
    shutil.rmtree(first.run.root)
    finished(parts)
    expected, found = weights(whole), weights(parts)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("kind", ["features", "image_and_prediction"])
def test_failures_that_depend_on_the_image_are_learned(task_for, trainer_on, kind):
    """A network that finds no tumour fails wherever there is one. The map ranks failures first; a constant has 0.5."""
    training = {"epochs": 6, "iterations_per_epoch": 20, "val_iterations_per_epoch": 6, "momentum": 0.9}
    first = task_for("judged", model={"uncertainty": False}, training=training)
    finished(first)
    find_nothing(first)
    second = task_for("judging", model={"error_network": {"run": "judged", "kind": kind}}, training=training)
    history = finished(second)
    losses = [history[epoch]["train/loss_error"] for epoch in (0, 5)]
    assert losses[1] < losses[0]
    assert len({history[epoch]["train/loss_seg"] for epoch in range(6)}) > 1  # measured, on other patches
    trainer = trainer_on(second)
    scores, failures = [], []
    for _ in range(6):
        data, target = trainer._to_device(next(trainer.dataloader_val))
        with torch.no_grad():
            logits, u = trainer.network(data, uncertainty=True)
        scores.append(u.flatten())
        failures.append(((logits.argmax(1, keepdim=True) > 0) != (target[0] > 0)).flatten())
    scores, failures = torch.cat(scores), torch.cat(failures)
    assert 0.01 < failures.float().mean() < 0.9
    assert mann_whitney(scores, failures) > 0.8
    assert mann_whitney(torch.zeros_like(scores), failures) == 0.5


def find_nothing(task):
    """Make the background win everywhere; the features stay."""
    file = task.run.final_checkpoint(0)
    content = torch.load(file, weights_only=False)
    last = max(name for name in content["network_weights"] if "seg_layers" in name and name.endswith("bias"))
    content["network_weights"][last] = torch.tensor([100.0, 0, 0, 0])
    torch.save(content, file)


@pytest.fixture
def trainer_on():
    """The trainer of a finished fold, its network loaded, its loaders at the first batch."""
    from uncseg.runs.fold_worker import start_trainer

    streams = []

    def make(task):
        trainer = start_trainer(task)
        trainer.load_checkpoint(str(task.run.final_checkpoint(0)))
        trainer.network.eval()
        trainer.next_batch = trainer.batches_after(0)
        trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
        streams.extend((trainer.dataloader_train, trainer.dataloader_val))
        return trainer

    yield make
    for stream in streams:
        stream.close()


def mann_whitney(scores, failures):
    """Return the share of pairs of a failure and a success that the scores put in order; ties count half."""
    ranks = torch.from_numpy(rankdata(scores.numpy()))
    n, total = int(failures.sum()), len(failures)
    return float((ranks[failures].sum() - n * (n + 1) / 2) / (n * (total - n)))


def test_judged_networks_norm_statistics_and_dropout_stay_off():
    """A network with both, as nnU-Net's plans may name one."""
    torch.manual_seed(0)
    sizes = (2, 3, (4, 8, 8), nn.Conv3d, 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), 1, 4, 1)
    dropout = {"dropout_op": nn.Dropout3d, "dropout_op_kwargs": {"p": 0.5}}
    judged = PlainConvUNet(*sizes, norm_op=nn.BatchNorm3d, nonlin=nn.LeakyReLU, **dropout)
    network = ErrorNetwork(judged, "labels", nn.Conv3d(4, 1, 1), reads_features=True)
    before = copy.deepcopy(judged.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    network.train()
    x = torch.randn(2, 2, 8, 8, 8)
    outputs = []
    for _ in range(3):
        logits, u = network(x, uncertainty=True)
        outputs.append(logits)
        optimizer.zero_grad()
        u.square().mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
    assert torch.equal(outputs[0], outputs[2])
    assert any("running_mean" in name for name in before)
    for name, value in judged.state_dict().items():
        assert torch.equal(value, before[name]), name
    copied = copy.deepcopy(network)
    assert torch.equal(copied(x), outputs[0])


def test_worker_names_the_missing_judged_run(task_for):
    task = task_for("judging", model={"error_network": {"run": "absent"}})
    train_fold(task, lambda _figures: None)
    history = read_history(task.run.spool, 0)
    assert history.state == "failed"
    assert "absent, and no such run" in history.message
