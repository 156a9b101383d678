"""What a run will do and take, printed before it begins."""

import shutil
from collections.abc import Sequence

from uncseg.cluster.calibration import Calibration
from uncseg.cluster.fold_worker import is_done
from uncseg.cluster.nodes import Cluster
from uncseg.cluster.resources import FEWEST_CPUS_PER_GPU, Slots
from uncseg.config import Experiment
from uncseg.console import console
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder

CHECKPOINTS_KEPT = 4  # of a fold while it trains: latest, the one before, best, and the one being written
MEMORIES_KEPT = 3  # of all these but the best
MEMORY_BYTES_PER_ML = 6800  # measured at 1 mm: docs/benchmarks.md


def print_plan(
    experiment: Experiment,
    prepared: PreparedFolder,
    folds: Sequence[int],
    cluster: Cluster,
    slots: Slots,
    calibration: Calibration | str | None,
) -> None:
    """Print folds, slots, waves, places, and with a calibration hours and disk.

    Args:
        cluster: its nodes are named where there are several.
        calibration: measured a moment ago; a text: why not; None: not asked for.
    """
    run = RunFolder(experiment.run_folder)
    todo = [fold for fold in folds if not is_done(run, fold)]
    if len(todo) < len(folds):
        console.print(f"finished already: {', '.join(str(fold) for fold in folds if fold not in todo)}")
    waves = -(-len(todo) // max(1, slots.most))
    gpus = f", {slots.each.gpus:g} GPUs" if slots.each.gpus else ""
    now = "" if slots.count == slots.most else f" ({slots.count} on the nodes there are, the others as nodes come)"
    console.print(
        f"{experiment.name}: folds {', '.join(map(str, todo)) or 'none'}, {experiment.training.epochs} epochs each; "
        f"{slots.most} side by side{now} ({slots.each.cpus:g} CPUs{gpus} each), {waves} wave{'s' * (waves != 1)}"
    )
    if len(cluster.nodes) > 1:
        nodes = "; ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in cluster.nodes)
        console.print(f"nodes: {nodes}", soft_wrap=True)
    console.print(f"prepared cases: {prepared.root}\nrun:            {run.root}", soft_wrap=True)
    console.print(f"MLflow:         {experiment.tracking_uri}", soft_wrap=True)
    if slots.each.gpus and slots.each.cpus / slots.each.gpus < FEWEST_CPUS_PER_GPU:
        console.print(
            f"{slots.each.cpus / slots.each.gpus:g} CPUs a GPU: the GPUs may wait for data; nnU-Net's loaders want "
            f"{FEWEST_CPUS_PER_GPU} to 12"
        )
    if isinstance(calibration, str):
        console.print(f"time and disk are not measured: {calibration}", soft_wrap=True)
    elif calibration is not None:
        volume_ml = sum(read_json(prepared.done)["volumes_ml"].values())
        _print_cost(experiment, run, todo, slots, calibration, waves, volume_ml)


def _print_cost(
    experiment: Experiment,
    run: RunFolder,
    todo: Sequence[int],
    slots: Slots,
    calibration: Calibration,
    waves: int,
    volume_ml: float,
) -> None:
    hours = calibration.hours(experiment)
    share = slots.each.gpus or slots.each.cpus
    unit = "GPU" if slots.each.gpus else "CPU"
    alone = ", with the GPU to itself" if 0 < slots.each.gpus < 1 else ""
    console.print(
        f"measured: {calibration.training_step_s:.3g} s a training step, {calibration.validation_step_s:.3g} s a "
        f"validation step{alone}\ntime:     {hours:.3g} h a fold, {waves * hours:.3g} h in all if the slots stay free; "
        f"{share * hours * len(todo):.3g} {unit}-hours",
        soft_wrap=True,
    )
    memory = volume_ml * MEMORY_BYTES_PER_ML
    of_fold = CHECKPOINTS_KEPT * calibration.checkpoint_bytes + MEMORIES_KEPT * memory
    free = shutil.disk_usage(run.root.parent if run.root.parent.exists() else run.root.anchor).free
    console.print(
        f"disk:     {_size(calibration.checkpoint_bytes)} a checkpoint and about {_size(memory)} its error memory, "
        f"{_size(of_fold)} a fold and {_size(of_fold * len(todo))} in all at most; {_size(free)} are free",
        soft_wrap=True,
    )
    if of_fold * len(todo) > free:
        console.print("the disk will be full before the run ends: free some, or give another storage.path")


def _size(n: float) -> str:
    return f"{n / 1e9:.3g} GB" if n >= 1e9 else f"{n / 1e6:.3g} MB"
