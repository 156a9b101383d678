"""Two processes that train one fold together, against one process with the joint batch."""

import contextlib
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import get_context, start_processes

from uncseg.config.experiment import load_experiment
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json
from uncseg.method.loss.terms import Comparison, mean_rmsd, one_minus_mean_corr, squared_difference
from uncseg.method.settings import TrainerSettings
from uncseg.metric_keys import SKIPPED_BATCHES, SKIPPED_STEPS
from uncseg.runs.preparation_tasks import prepare_cases


def run_together(function, together, *arguments):
    """Run ``function(rank, together, *arguments)`` in processes that share one import of nnU-Net (seconds)."""
    get_context("forkserver").set_forkserver_preload(["uncseg.method.training.trainer"])
    start_processes(function, (together, *arguments), nprocs=together, start_method="forkserver")


class WithNan:
    """A stream whose second batch ends in a sample of NaN."""

    def __init__(self, stream):
        self.stream, self.number = stream, 0

    def __next__(self):
        batch = next(self.stream)
        self.number += 1
        if self.number == 2:
            batch["data"][-1] = torch.nan
        return batch

    def __getattr__(self, name):
        return getattr(self.stream, name)


def train(rank, together, folder, environment, plans, dataset_json, with_nan=False):
    """Train in one of the processes, and write what it ends with to a file.

    Args:
        with_nan: the last sample of the second batch of both streams, which the last process draws, is NaN.
    """
    import os

    from uncseg.method.training.trainer import UncertaintyTrainer

    torch.set_num_threads(1)
    os.environ.update(environment)
    if together > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=together)
    with contextlib.redirect_stdout(None):
        trainer = UncertaintyTrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
        trainer.initialize()
        epochs = {}
        trainer.on_epoch = epochs.__setitem__
        streams = trainer.get_dataloaders
        if with_nan and rank == together - 1:
            trainer.get_dataloaders = lambda: [WithNan(stream) for stream in streams()]
        trainer.run_training()
    network = trainer.network.module if together > 1 else trainer.network
    memories = {name: memory.state()["cases"] for name, memory in trainer.memories.items()}
    torch.save({"weights": network.state_dict(), "memories": memories, "epochs": epochs}, folder / f"rank_{rank}.pt")
    if together > 1:
        dist.destroy_process_group()


def total_of_terms(u, e, m):
    pair = Comparison.within(m, u, e)
    return squared_difference(pair) + mean_rmsd(pair) + one_minus_mean_corr(pair)


def gradient(rank, together, folder, batch):
    """Write the gradient of the terms with respect to the process's own samples, as DDP would average it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=together)
    own = slice(rank * 2, rank * 2 + 2)
    u, e, m = (t[own].clone() for t in batch)
    u.requires_grad_()
    total_of_terms(u, e, m).backward()
    torch.save({"gradient": u.grad / together}, folder / f"rank_{rank}.pt")
    dist.destroy_process_group()


def test_valid_samples_are_counted_over_both_processes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    u, e = (torch.rand((4, 1, 6, 6, 6), generator=generator) for _ in range(2))
    m = torch.ones_like(u)
    m[0] = 0  # one sample without a mask, and one with a constant error: the processes count differently
    e[3] = 0.5
    run_together(gradient, 2, tmp_path, (u, e, m))
    found = torch.cat([torch.load(tmp_path / f"rank_{rank}.pt")["gradient"] for rank in range(2)])
    u.requires_grad_()
    total_of_terms(u, e, m).backward()
    torch.testing.assert_close(found, u.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("sections", "with_nan"),
    [
        ({}, False),
        ({}, True),
        ({"loss": {"cancer_mask": "union"}, "plan": {"max_stages": 3}}, False),
        ({"memory": {"source": "teacher", "teacher_decay": 0.5}}, False),
        (
            {"model": {"error_network": {"run": "another", "kind": "image_and_prediction"}}, "plan": {"max_stages": 3}},
            False,
        ),
    ],
    ids=["reference mask", "skipped batches", "union mask, deep supervision", "teacher", "error network"],
)
def test_two_processes_train_as_one_with_the_joint_batch(
    local_ray, four_cases, experiment_file, tmp_path, sections, with_nan
):
    training = {"epochs": 3, "iterations_per_epoch": 3, "val_iterations_per_epoch": 3, "initial_lr": 0.001}
    sections = {**sections, "loss": {"warmup_epochs": 1, **sections.get("loss", {})}, "training": training}
    experiment = load_experiment(experiment_file(four_cases, **sections))
    prepared = prepare_cases(experiment)
    plans = TrainerSettings.from_experiment(experiment).into_plans(read_json(prepared.plans))
    dataset_json = read_json(prepared.dataset / "dataset.json")
    ended = []
    for together in (1, 2):
        folder = tmp_path / str(together)
        folder.mkdir()
        environment = nnunet_environment(prepared, folder / "results")
        run_together(train, together, folder, environment, plans, dataset_json, with_nan)
        ended.append([torch.load(Path(folder) / f"rank_{rank}.pt", weights_only=True) for rank in range(together)])
    (alone,), (first, second) = ended
    for metrics in (alone["epochs"], first["epochs"], second["epochs"]):
        for name in (SKIPPED_STEPS, SKIPPED_BATCHES):
            assert [metrics[epoch][name] for epoch in sorted(metrics)] == [int(with_nan), 0, 0]
    for name, weight in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name)
        assert torch.equal(first["weights"][name], second["weights"][name])
    for side, cases in alone["memories"].items():
        torch.testing.assert_close(first["memories"][side], second["memories"][side], rtol=0, atol=0)
        assert cases.keys() == first["memories"][side].keys()
        for case, memory in cases.items():
            assert torch.equal(first["memories"][side][case]["visits"], memory["visits"])
            agree = (first["memories"][side][case]["values"] - memory["values"]).abs() < 2e-3
            assert agree.float().mean() > 0.999
    for epoch, metrics in alone["epochs"].items():
        for name, value in metrics.items():
            if name.startswith(("train/", "uncertainty/")):
                assert first["epochs"][epoch][name] == pytest.approx(value, rel=0.02, abs=2e-3, nan_ok=True), name
