"""Shared by the measurements: cases and trainers to measure with, rounds in turn, one line of JSON at the end."""

import contextlib
import copy
import json
import os
import statistics
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)

import torch
import yaml
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from uncseg.cluster.session import ray_session
from uncseg.config.experiment import Experiment, load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json
from uncseg.layout import PreparedFolder
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.trainer import UncertaintyTrainer
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.tasks.built_in_tasks import paper_task

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # where torch was imported before this file


def arguments(description: str | None, **more: int) -> Namespace:
    """Read the options that all measurements have, and those of one of them (whole numbers)."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    defaults = {"cases": 8, "size": 64, "patch": 48, "features": 16, "batch": 2, "runs": 5} | more
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    print(f"device: {device_name(options.device)}; {vars(options)}", flush=True)
    return options


def device_name(device: str) -> str:
    """Return the device's name for a reader."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} thread(s)"


@contextlib.contextmanager
def prepared_phantoms(
    options: Namespace, folds: int = 2, preset: str | None = None, **training: Any
) -> Iterator[tuple[Experiment, PreparedFolder]]:
    """Prepare phantoms for the patch and network that are measured, in a folder that ends with the block."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_phantoms(folder / "cases", options.cases, options.size, seed=0, task=paper_task())
        content = {
            "name": "measured",
            "dataset": {"path": str(folder / "cases"), "name": "Phantoms"},
            "split": {"folds": folds},
            "plan": {
                "patch_size": [options.patch] * 3,
                "batch_size": options.batch,
                "base_features": options.features,
                "memory_target_gib": 40,
                "preset": preset,
            },
            "training": {"loader_processes": 0, **training},
            "storage": {"path": str(folder / "runs")},
        }
        file = folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        experiment = load_experiment(file)
        with ray_session("local", num_cpus=2, dashboard=False):
            prepared = prepare_cases(experiment)
        os.environ.update(nnunet_environment(prepared, folder / "results"))
        yield experiment, prepared


def make_trainer(
    kind: type[nnUNetTrainer], options: Namespace, experiment: Experiment, prepared: PreparedFolder
) -> Any:
    """Return an initialised trainer, ours or nnU-Net's, on the same plans."""
    plans = TrainerSettings.from_experiment(experiment).into_plans(copy.deepcopy(read_json(prepared.plans)))
    plans["continue_training"] = False
    with contextlib.redirect_stdout(None):
        dataset_json = read_json(prepared.dataset / "dataset.json")
        trainer = kind(plans, experiment.plan.configuration, 0, dataset_json, torch.device(options.device))
        trainer.initialize()
    trainer.network.train()
    return trainer


def both_trainers(options: Namespace, experiment: Experiment, prepared: PreparedFolder) -> tuple[Any, Any]:
    """Return our trainer and nnU-Net's."""
    ours = make_trainer(UncertaintyTrainer, options, experiment, prepared)
    return ours, make_trainer(nnUNetTrainer, options, experiment, prepared)


def in_turn(name: str, unit: str, runs: int, ours: Callable[[], float], peer: Callable[[], float], **more: Any) -> None:
    """Measure both in turn, then print medians and their ratio as one line of JSON."""
    report(name, unit, runs, *medians(unit, runs, ours, peer), **more)


def medians(unit: str, runs: int, ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float]:
    """Return the medians of ours and of the peer, measured in turn after one unmeasured round."""
    ours()
    peer()
    pairs = []
    for run in range(runs):
        # who goes first changes, so that neither always meets the warmer machine
        pair = (ours(), peer()) if run % 2 == 0 else (peer(), ours())[::-1]
        pairs.append(pair)
        print(f"run {run + 1}: ours {pair[0]:.4g} {unit}, peer {pair[1]:.4g} {unit}", flush=True)
    our_median, peer_median = (statistics.median(values) for values in zip(*pairs, strict=True))
    return our_median, peer_median


def report(name: str, unit: str, runs: int, ours: float, peer: float, **more: Any) -> None:
    """Print the line of JSON."""
    result = {"measured": name, "ours": ours, "peer": peer, "ratio": ours / peer, "unit": unit, "runs": runs, **more}
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}))
