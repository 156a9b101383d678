"""What a run will do and take, printed before it begins."""

from collections.abc import Sequence

from uncseg.cluster.nodes import Cluster
from uncseg.cluster.resources import FEWEST_CPUS_PER_GPU, Slots
from uncseg.config.experiment import Experiment
from uncseg.console import console
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.runs.disk_plan import disk_of, print_disk, size_text
from uncseg.runs.members import all_done
from uncseg.runs.step_timing import StepTiming


def print_plan(
    experiment: Experiment,
    prepared: PreparedFolder,
    folds: Sequence[int],
    cluster: Cluster,
    slots: Slots,
    calibration: StepTiming | str | None,
) -> None:
    """Print folds, slots, waves, places, disk, and with a calibration hours.

    Args:
        cluster: its nodes are named where there are several.
        calibration: measured a moment ago; a text: why not; None: not asked for.
    """
    run = RunFolder(experiment.run_folder)
    todo = [fold for fold in folds if not all_done(experiment, run, fold)]
    networks = len(todo) * experiment.training.members
    if len(todo) < len(folds):
        console.print(f"finished already: {', '.join(str(fold) for fold in folds if fold not in todo)}")
    waves = -(-networks // max(1, slots.most))
    members = f", {experiment.training.members} networks a fold" if experiment.training.members > 1 else ""
    gpus = f", {slots.each.gpus:g} GPUs" if slots.each.gpus else ""
    now = "" if slots.count == slots.most else f" ({slots.count} on the nodes there are, the others as nodes come)"
    console.print(
        f"{experiment.name}: folds {', '.join(map(str, todo)) or 'none'}{members}, {experiment.training.epochs} epochs "
        f"each; {slots.most} side by side{now} ({slots.each.cpus:g} CPUs{gpus} each), {waves} wave{'s' * (waves != 1)}"
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
        console.print(f"time is not measured: {calibration}", soft_wrap=True)
    elif calibration is not None:
        _print_time(experiment, networks, slots, calibration, waves)
    measured = calibration.checkpoint_bytes if isinstance(calibration, StepTiming) else None
    disk = disk_of(experiment, prepared, measured)
    kept = disk.kept * len(folds) * experiment.training.members
    if todo:
        print_disk(disk, disk.training * networks, networks, run.root)
    console.print(
        f"kept:     best and last checkpoint of each fold with its error memory, {size_text(kept)}; "
        f"maps of every case, about {size_text(disk.maps * len(folds) / experiment.split.folds)}\n"
        f"stored:   in MLflow the weights alone, {size_text(disk.weights * len(folds))}",
        soft_wrap=True,
    )


def _print_time(experiment: Experiment, networks: int, slots: Slots, calibration: StepTiming, waves: int) -> None:
    hours = calibration.hours(experiment)
    share = slots.each.gpus or slots.each.cpus
    unit = "GPU" if slots.each.gpus else "CPU"
    alone = ", with the GPU to itself" if 0 < slots.each.gpus < 1 else ""
    console.print(
        f"measured: {calibration.training_step_s:.3g} s a training step, {calibration.validation_step_s:.3g} s a "
        f"validation step{alone}\ntime:     {hours:.3g} h a fold, {waves * hours:.3g} h in all if the slots stay free; "
        f"{share * hours * networks:.3g} {unit}-hours",
        soft_wrap=True,
    )
