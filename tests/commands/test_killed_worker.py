"""A worker is killed three times in one run, at random steps of random epochs; every bit of the end is the same."""

import os
import random
import signal
from pathlib import Path

import pytest

from support.clusters import hashes
from support.commands import start_uncseg
from uncseg.files import read_json
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

EPOCHS, KILLS = 8, 3
TICKS = os.sysconf("SC_CLK_TCK")


def training_workers():
    """Return the process ids of the Ray workers that are in a training function now."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::RayTrainWorker"):
            found.append(int(process.name))
    return found


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def kill_at_a_random_step(command, run, number, epoch, choice):
    """Send SIGKILL to the worker of attempt ``number`` some random share of work after it has ended an epoch."""
    history = read_history(run / "spool", 0)

    def reached():
        history.refresh(run / "spool")
        return history.attempt == number and history.last_epoch >= epoch

    command.wait_until(reached)
    (worker,) = training_workers()
    at = cpu_seconds(worker) + choice.uniform(0, 1)
    command.wait_until(lambda: cpu_seconds(worker) >= at)
    os.kill(worker, signal.SIGKILL)
    history.refresh(run / "spool")
    return history.last_epoch


def test_a_worker_killed_three_times_ends_the_same(tmp_path, four_cases, experiment_file):
    training = {"epochs": EPOCHS, "iterations_per_epoch": 15, "checkpoint_every": 2}
    runs = []
    for name in ("undisturbed", "disturbed"):
        file = experiment_file(four_cases, training=training, storage={"path": str(tmp_path / name)})
        file = file.rename(tmp_path / f"{name}.yaml")
        runs.append(tmp_path / name / "small")
        command = start_uncseg("cross-validate", file, "--folds", "0", log=file.with_suffix(".log"))
        if name == "disturbed":
            choice = random.Random()
            after = sorted(choice.sample(range(EPOCHS - 2), KILLS))
            killed = [kill_at_a_random_step(command, runs[-1], n, epoch, choice) for n, epoch in enumerate(after, 1)]
            print("killed after epochs", killed)
        command.require()
    assert hashes(runs[0], 0) == hashes(runs[1], 0)
    assert read_history(runs[1] / "spool", 0).attempt == KILLS + 1
    for run in runs:
        assert read_json(next(run.rglob("fold_0/done.json")))["epochs"] == EPOCHS
    first, second = (read_history(run / "spool", 0).epochs for run in runs)
    assert len(first) == len(second) == EPOCHS
    for a, b in zip(first.values(), second.values(), strict=True):
        timeless = [name for name in a.metrics if "seconds" not in name]
        assert {n: a.metrics[n] for n in timeless} == {n: b.metrics[n] for n in timeless}
