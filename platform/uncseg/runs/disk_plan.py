"""Estimates of the disk space that checkpoints, error memories and maps will take, before anything is trained."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from uncseg.config.experiment import Experiment
from uncseg.console import console, warn
from uncseg.files import read_json
from uncseg.layout import PreparedFolder

CHECKPOINTS_TRAINING = 4  # per fold while it trains: latest, the one before, best, and the one being written
MEMORIES_TRAINING = 3  # one beside each of these but the best
CHECKPOINTS_FINISHED = 2  # per fold after its training: best and last
MEMORY_BYTES_PER_ML = 6800  # measured at 1 mm: docs/performance.md
MAP_BYTES_PER_VOXEL = 9  # measured on phantoms: all compressed maps of a case, per voxel of the brain's bounding box


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes that one fold of an experiment takes, and the maps of all cases."""

    checkpoint: float
    """One checkpoint with its optimiser."""
    memory: float
    """The error memory beside a checkpoint."""
    weights: float
    """What MLflow stores of a checkpoint."""
    maps: float
    """Out-of-fold maps of all cases together."""

    @property
    def training(self) -> float:
        """Peak while the fold trains."""
        return CHECKPOINTS_TRAINING * self.checkpoint + MEMORIES_TRAINING * self.memory

    @property
    def kept(self) -> float:
        """After the fold's training."""
        return CHECKPOINTS_FINISHED * self.checkpoint + self.memory


def estimate_disk(
    experiment: Experiment, prepared: PreparedFolder, checkpoint_bytes: int | None = None
) -> DiskEstimate:
    """Estimate what one fold will take; ``checkpoint_bytes`` None: computed from the number of weights."""
    from uncseg.method.network.build import BYTES_PER_WEIGHT, count_weights

    done, plans = read_json(prepared.done), read_json(prepared.plans)
    dataset_json = read_json(prepared.dataset / "dataset.json")
    count = count_weights(experiment.model, plans, experiment.plan.configuration, dataset_json)
    copies = 3 if experiment.training.optimizer == "adamw" else 2  # weight and two moments, or weight and momentum
    voxels = math.prod(plans["original_median_shape_after_transp"])
    return DiskEstimate(
        checkpoint=checkpoint_bytes or copies * BYTES_PER_WEIGHT * count,
        memory=sum(done["volumes_ml"].values()) * MEMORY_BYTES_PER_ML,
        weights=BYTES_PER_WEIGHT * count,
        maps=done["cases"] * voxels * MAP_BYTES_PER_VOXEL,
    )


def print_disk(disk: DiskEstimate, total: float, folds: int, root: Path) -> None:
    """Print the peak need of ``folds`` folds, ``total`` bytes, and the free space where a run's folder lies."""
    free = shutil.disk_usage(next(folder for folder in root.parents if folder.exists())).free
    console.print(
        f"disk:     {size_text(disk.checkpoint)} per checkpoint, about {size_text(disk.memory)} per error memory, "
        f"{size_text(total / folds)} per fold and {size_text(total)} altogether at most; {size_text(free)} are free",
        soft_wrap=True,
    )
    if total > free:
        warn("the disk will fill up before the end: free some space, or set another storage.path")


def size_text(n: float) -> str:
    """Return a number of bytes as text in MB or GB."""
    return f"{n / 1e9:.3g} GB" if n >= 1e9 else f"{n / 1e6:.3g} MB"
