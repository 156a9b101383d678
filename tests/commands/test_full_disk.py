"""A disk is full when a checkpoint is due: the command names the fold, which goes on once there is room."""

import pytest

from support.clusters import hashes, last_epoch
from support.commands import run_uncseg, start_uncseg
from support.small_disk import small_disk
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

EPOCHS = 40


@pytest.fixture
def disk(tmp_path):
    """A disk of 3 GiB."""
    with small_disk(tmp_path / "disk", "3g") as made:
        if not made.can_be_filled:
            pytest.skip("mounting needs root")
        yield made


def test_a_full_disk_costs_the_epochs_since_the_last_checkpoint(disk, tmp_path, four_cases, experiment_file):
    folder, seen, inside = disk.folder, disk.seen, list(disk.inside)
    training = {"epochs": EPOCHS, "iterations_per_epoch": 10, "checkpoint_every": 4}
    file = experiment_file(four_cases, training=training, resources={"cpus_per_fold": 1})
    command = ["cross-validate", file, "--folds", "0", "--set", f"storage.path={folder}/runs"]
    run = seen / "runs/small"

    first = start_uncseg(*command, log=tmp_path / "first.log", watched=[seen], before=inside)
    first.wait_until(lambda: last_epoch(run, 0) >= 10)
    disk.fill()
    output = first.require(1)
    assert "failed folds: 0" in output
    assert "No space left" in output or "is full" in output
    (latest,) = run.rglob("fold_0/checkpoint_latest.pth")
    assert not list(latest.parent.glob(".part-*"))

    disk.free()
    start_uncseg(*command, log=tmp_path / "second.log", watched=[seen], before=inside).require()
    history = read_history(run / "spool", 0)
    assert history.attempt >= 2
    assert history.first_epochs[history.attempt] >= 8

    run_uncseg(*command[:4], folder=tmp_path)
    assert hashes(run, 0) == hashes(tmp_path / "runs/small", 0)
