"""What a run will do and take, printed before it begins: folds, slots, hours, and estimates of disk space."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uncseg.cluster.resources import MAX_CPUS_PER_GPU, MIN_CPUS_PER_GPU, Cluster, Slots
from uncseg.config.experiment import Experiment
from uncseg.config.task_files import nnunet_dataset_json
from uncseg.console import console, show_warnings, warn
from uncseg.dataset.labels import AS_NAMED, AS_SET, BY_DATASET_JSON, describe_convention
from uncseg.dataset.patients import find_patients
from uncseg.dataset.splits import read_splits
from uncseg.dataset.told_task import describe_task
from uncseg.files import read_json
from uncseg.layout import PreparedFolder
from uncseg.runs.fold_request import RunRequest, all_members_done
from uncseg.runs.step_timing import StepTiming

CHECKPOINTS_TRAINING = 4  # per fold while it trains: latest, the one before, best, and the one being written
MEMORIES_TRAINING = 3  # one beside each of these but the best
CHECKPOINTS_FINISHED = 2  # per fold after its training: best and last
MEMORY_BYTES_PER_ML = 6800  # measured at 1 mm: docs/performance.md
DECISION_BYTES_PER_VOXEL = 0.6  # measured on real cases of 2 mm: RUN/failures/CASE.b2nd, per voxel and region
MAP_BYTES_PER_VOXEL = 9  # measured on phantoms: all compressed maps of a case, per voxel of the brain's bounding box


def print_plan(request: RunRequest, folds: Sequence[int], cluster: Cluster, timing: StepTiming | str | None) -> None:
    """Print folds, slots, waves, folders, disk space and, if steps were timed, hours.

    Args:
        folds: folds to train, finished or not.
        cluster: its nodes are listed if there are several.
        timing: the measurement, or why nothing was measured; None: not asked for.
    """
    experiment, prepared, run, slots = request.experiment, request.prepared, request.run, request.slots
    fold = slots.fold
    todo = [number for number in folds if not all_members_done(experiment, run, number)]
    networks = len(todo) * experiment.training.members
    if len(todo) < len(folds):
        console.print(f"already finished: {', '.join(str(number) for number in folds if number not in todo)}")
    waves = -(-networks // max(1, slots.max_count))
    members = f", {experiment.training.members} networks per fold" if experiment.training.members > 1 else ""
    gpus = f", {fold.gpus:g} GPUs" if fold.gpus else ""
    now = "" if slots.count == slots.max_count else f" ({slots.count} on the present nodes, the others as nodes come)"
    console.print(
        f"{experiment.name}: folds {', '.join(map(str, todo)) or 'none'}{members}, {experiment.training.epochs} epochs "
        f"each; {slots.max_count} side by side{now} ({fold.cpus:g} CPUs{gpus} each), {waves} wave{'s' * (waves != 1)}"
    )
    if len(cluster.nodes) > 1:
        nodes = "; ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in cluster.nodes)
        console.print(f"nodes: {nodes}", soft_wrap=True)
    print_cases(experiment, prepared)
    console.print(f"prepared cases: {prepared.root}\nrun:            {run.root}", soft_wrap=True)
    console.print(f"MLflow:         {experiment.tracking_uri}", soft_wrap=True)
    if fold.gpus and fold.cpus / fold.gpus < MIN_CPUS_PER_GPU:
        warn(
            f"{fold.cpus / fold.gpus:g} CPUs per GPU: the GPUs may wait for data; nnU-Net's loaders need "
            f"{MIN_CPUS_PER_GPU} to {MAX_CPUS_PER_GPU}"
        )
    if isinstance(timing, str):
        warn(f"time was not measured: {timing}")
    elif timing is not None:
        _print_time(experiment, networks, slots, timing, waves)
    disk = estimate_disk(experiment, prepared, timing.checkpoint_bytes if isinstance(timing, StepTiming) else None)
    kept = disk.kept * len(folds) * experiment.training.members
    if todo:
        print_disk(disk, disk.training * networks, networks, run.root)
    console.print(
        f"kept:     best and last checkpoint of each fold with its error memory, {size_text(kept)}; "
        f"maps of every case, about {size_text(disk.maps * len(folds) / experiment.split.folds)}"
        f"{_decisions_text(experiment, disk)}\n"
        f"stored:   in MLflow the weights alone, {size_text(disk.weights * len(folds))}",
        soft_wrap=True,
    )


def print_cases(experiment: Experiment, prepared: PreparedFolder) -> None:
    """Print what the labels mean and how many patients there are, each with how it is known, and the split's source."""
    split, folds = experiment.split, read_splits(prepared.splits)
    dataset = experiment.dataset
    named = BY_DATASET_JSON if nnunet_dataset_json(dataset.path) is not None else AS_NAMED
    reason = named if dataset.convention is None else AS_SET
    task = experiment.dataset.task
    console.print(describe_task(task, "dataset.task"))
    console.print(describe_convention(read_json(prepared.done)["convention"], reason, task))
    cases = sorted(case for fold in folds for case in fold["val"])
    patients, _ = find_patients(cases, experiment.dataset.patients, task=task)
    console.print(f"patients: {patients}", soft_wrap=True)
    show_warnings(patients.warnings)
    sizes = [f"{len(fold['val'])} case{'s' * (len(fold['val']) != 1)}" for fold in folds]
    if split.given is None:
        grouped = f", grouped by patient and balanced by volume of {task.main_region}"
        of_cases = ", case by case as nnU-Net draws it"
        source = f"drawn with seed {split.seed}{grouped if split.drawn == 'patients' else of_cases}"
    else:
        source = f"as in {split.given.read_from.name}"
        if split.given.groups is not None:
            sizes = [f"without {group}, {size}" for group, size in zip(split.given.groups, sizes, strict=True)]
    shared = ", a patient may be in several" * split.allow_shared_patients
    console.print(f"split:    {len(folds)} folds, {source}{shared}", soft_wrap=True)
    for fold, size in enumerate(sizes):
        console.print(f"          fold {fold}: {size}", soft_wrap=True)


def _print_time(experiment: Experiment, networks: int, slots: Slots, timing: StepTiming, waves: int) -> None:
    hours, fold = timing.hours(experiment), slots.fold
    share, unit = (fold.gpus, "GPU") if fold.gpus else (fold.cpus, "CPU")
    alone = ", with the GPU to itself" if 0 < fold.gpus < 1 else ""
    console.print(
        f"measured: {timing.training_step_s:.3g} s per training step, {timing.validation_step_s:.3g} s per validation "
        f"step{alone}\ntime:     {hours:.3g} h per fold, {waves * hours:.3g} h altogether if the slots stay free; "
        f"{share * hours * networks:.3g} {unit}-hours",
        soft_wrap=True,
    )


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
    decisions: float
    """What failure networks are trained on, of all cases together."""

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
    count = count_weights(experiment.model, experiment.dataset.task, plans, experiment.plan.configuration, dataset_json)
    copies = 3 if experiment.training.optimizer == "adamw" else 2  # weight and two moments, or weight and momentum
    copies += (experiment.training.averaged_epochs > 0) + (experiment.memory.source == "teacher")  # a copy, averaged
    voxels = math.prod(plans["original_median_shape_after_transp"])
    return DiskEstimate(
        checkpoint=checkpoint_bytes or copies * BYTES_PER_WEIGHT * count,
        memory=sum(done["volumes_ml"].values()) * MEMORY_BYTES_PER_ML,
        weights=BYTES_PER_WEIGHT * count,
        maps=done["cases"] * voxels * MAP_BYTES_PER_VOXEL,
        decisions=done["cases"] * voxels * DECISION_BYTES_PER_VOXEL * len(experiment.dataset.task.regions),
    )


def _decisions_text(experiment: Experiment, disk: DiskEstimate) -> str:
    """Return what failure networks are trained on, as an addition to what is kept; empty where none is trained."""
    if not experiment.failures.steps:
        return ""
    return f"; inputs of the failure networks, about {size_text(disk.decisions)}"


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
