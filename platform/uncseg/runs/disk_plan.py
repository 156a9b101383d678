"""What checkpoints, error memories and maps will take of the disk, told before anything is trained."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from uncseg.config.experiment import Experiment
from uncseg.console import console
from uncseg.files import read_json
from uncseg.layout import PreparedFolder
from uncseg.method.settings import TrainerSettings

CHECKPOINTS_KEPT = 4  # of a fold while it trains: latest, the one before, best, and the one being written
MEMORIES_KEPT = 3  # of all these but the best
MEMORY_BYTES_PER_ML = 6800  # measured at 1 mm: docs/performance.md
FINISHED_KEEPS = 2  # checkpoints: best and last
MAP_BYTES_PER_VOXEL = 9  # measured on phantoms: all maps of a case, compressed, by the box that holds its brain


@dataclass(frozen=True)
class Disk:
    """Bytes that a fold of an experiment takes, and the maps of all its cases."""

    checkpoint: float
    """With its optimiser."""
    memory: float
    """Error memory beside a checkpoint."""
    weights: float
    """What MLflow gets of a checkpoint."""
    maps: float
    """Of all cases together, out of fold."""

    @property
    def training(self) -> float:
        """At most, while a fold trains."""
        return CHECKPOINTS_KEPT * self.checkpoint + MEMORIES_KEPT * self.memory

    @property
    def kept(self) -> float:
        """After its training."""
        return FINISHED_KEEPS * self.checkpoint + self.memory


def disk_of(experiment: Experiment, prepared: PreparedFolder, checkpoint_bytes: int | None = None) -> Disk:
    """What a fold of an experiment will take.

    Args:
        checkpoint_bytes: as measured; None: told from the network's size.
    """
    from uncseg.method.training.network_size import BYTES_PER_WEIGHT, count_weights

    done, plans = read_json(prepared.done), read_json(prepared.plans)
    dataset_json = read_json(prepared.dataset / "dataset.json")
    count = count_weights(plans, experiment.plan.configuration, dataset_json, TrainerSettings.of(experiment))
    copies = 3 if experiment.training.optimizer == "adamw" else 2  # a weight with its two moments, or its momentum
    voxels = math.prod(plans["original_median_shape_after_transp"])
    return Disk(
        checkpoint=checkpoint_bytes or copies * BYTES_PER_WEIGHT * count,
        memory=sum(done["volumes_ml"].values()) * MEMORY_BYTES_PER_ML,
        weights=BYTES_PER_WEIGHT * count,
        maps=done["cases"] * voxels * MAP_BYTES_PER_VOXEL,
    )


def print_disk(disk: Disk, in_all: float, folds: int, root: Path) -> None:
    """Print what the checkpoints of so many folds need at most, and what is free where a run lies."""
    parent = next(folder for folder in root.parents if folder.exists())
    free = shutil.disk_usage(parent).free
    console.print(
        f"disk:     {size_text(disk.checkpoint)} a checkpoint and about {size_text(disk.memory)} its error memory, "
        f"{size_text(in_all / folds)} a fold and {size_text(in_all)} in all at most; {size_text(free)} are free",
        soft_wrap=True,
    )
    if in_all > free:
        console.print("the disk will be full before the end: free some, or give another storage.path")


def size_text(n: float) -> str:
    """Bytes for people."""
    return f"{n / 1e9:.3g} GB" if n >= 1e9 else f"{n / 1e6:.3g} MB"
