"""A disk that is really full when a checkpoint is due: the fold fails by name, and goes on once there is room."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from support.clusters import LIMIT_S, end_of, hashes, last_epoch, wait_until
from support.commands import run_uncseg, start_uncseg
from uncseg.dataset.phantom import write_phantoms
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

EPOCHS = 40


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 GiB, mounted at a folder, for one process and those it starts; (holder, folder, the folder seen from
    outside)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    script = f"mount -t tmpfs -o size=3g none {folder} && echo ready && exec sleep infinity"
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    if holder.stdout.readline() != "ready\n":
        pytest.skip("mounting needs root")
    yield holder, folder, Path(f"/proc/{holder.pid}/root{folder}")
    holder.kill()
    holder.wait()


def fill(file):
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while stream.write(bytes(size)) == size:
                    pass


def test_a_full_disk_costs_the_epochs_since_the_last_checkpoint(small_disk, tmp_path, experiment_file):
    holder, folder, seen = small_disk
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0)
    training = {"epochs": EPOCHS, "iterations_per_epoch": 10, "checkpoint_every": 4}
    file = experiment_file(tmp_path / "cases", training=training, resources={"cpus_per_fold": 1})
    command = ["cross-validate", file, "--folds", "0", "--set", f"storage.path={folder}/runs"]
    inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
    run = seen / "runs/small"

    process = start_uncseg(*command, log=tmp_path / "first.log", before=inside)
    process.log = tmp_path / "first.log"
    wait_until(lambda: last_epoch(run, 0) >= 10, process)
    fill(seen / "ballast")
    assert end_of(process) == 1
    assert "failed folds: 0" in process.log.read_text()
    assert "No space left" in process.log.read_text() or "is full" in process.log.read_text()
    (latest,) = run.rglob("fold_0/checkpoint_latest.pth")
    assert not list(latest.parent.glob(".part-*"))

    (seen / "ballast").unlink()
    again = start_uncseg(*command, log=tmp_path / "second.log", before=inside)
    assert again.wait(LIMIT_S) == 0, (tmp_path / "second.log").read_text()[-3000:]
    history = read_history(run / "spool", 0)
    assert history.attempt >= 2
    assert history.first_epochs[history.attempt] >= 8

    done = run_uncseg(*command[:4], limit_s=LIMIT_S)
    assert done.returncode == 0
    assert hashes(run, 0) == hashes(tmp_path / "runs/small", 0)
