import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from uncseg.tracking.spool import SpoolWriter, epoch_table, fold_file, read_history, read_records, write_state


def test_a_table_holds_every_epoch_of_every_fold(tmp_path):
    for fold in (1, 0):
        writer = SpoolWriter(tmp_path, fold, first_epoch=0)
        for epoch in range(3):
            writer.epoch(epoch, {"train/loss": fold + epoch / 10, "corr": np.float32(0.5)})
    table = epoch_table(tmp_path)
    assert list(table.columns) == ["fold", "epoch", "attempt", "time_ms", "train/loss", "corr"]
    assert table["fold"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["epoch"].tolist() == [0, 1, 2, 0, 1, 2]
    assert table["train/loss"].tolist() == [0, 0.1, 0.2, 1, 1.1, 1.2]
    assert (table["time_ms"].diff().dropna().iloc[[0, 1, 3, 4]] >= 0).all()


def test_no_records_make_a_table_without_rows(tmp_path):
    table = epoch_table(tmp_path / "absent")
    assert list(table.columns) == ["fold", "epoch", "attempt", "time_ms"]
    assert len(table) == 0


def test_a_restart_voids_what_lies_beyond_the_restored_epoch(tmp_path):
    first = SpoolWriter(tmp_path, 0, first_epoch=0)
    for epoch in range(5):
        first.epoch(epoch, {"loss": 1.0})
    second = SpoolWriter(tmp_path, 0, first_epoch=3)
    second.epoch(3, {"loss": 2.0})
    table = epoch_table(tmp_path)
    assert table["epoch"].tolist() == [0, 1, 2, 3]
    assert table["attempt"].tolist() == [1, 1, 1, 2]
    assert table["loss"].tolist() == [1, 1, 1, 2]


def test_an_earlier_attempt_that_writes_on_is_ignored(tmp_path):
    zombie = SpoolWriter(tmp_path, 0, first_epoch=0)
    zombie.epoch(0, {"loss": 1.0})
    successor = SpoolWriter(tmp_path, 0, first_epoch=1)
    successor.epoch(1, {"loss": 2.0})
    zombie.epoch(1, {"loss": 9.0})
    zombie.checkpoint(1)
    zombie.state("failed")
    history = read_history(tmp_path, 0)
    assert history.epochs[1].metrics == {"loss": 2.0}
    assert history.kept_epoch == 0
    assert history.state == "running"


def test_kept_epoch_is_the_last_that_no_restart_trains_again(tmp_path):
    writer = SpoolWriter(tmp_path, 0, first_epoch=0)
    for epoch in range(4):
        writer.epoch(epoch, {"loss": 1.0})
    assert read_history(tmp_path, 0).kept_epoch == -1
    writer.checkpoint(1)
    assert read_history(tmp_path, 0).kept_epoch == 1
    writer.state("failed", "out of memory")
    history = read_history(tmp_path, 0)
    assert (history.state, history.message, history.kept_epoch) == ("failed", "out of memory", 1)
    writer.restart(1)  # the checkpoint of epoch 1 could not be read, that of epoch 0 could
    history = read_history(tmp_path, 0)
    assert (history.state, history.kept_epoch, history.last_epoch) == ("running", 0, 0)
    writer.epoch(1, {"loss": 1.0})
    writer.state("finished")
    assert read_history(tmp_path, 0).kept_epoch == 1


def test_values_that_are_not_finite_are_null_in_the_file_and_nan_in_the_table(tmp_path):
    writer = SpoolWriter(tmp_path, 0, first_epoch=0)
    writer.epoch(0, {"loss": math.nan, "corr": math.inf, "dice": 0.5})
    last = fold_file(tmp_path, 0).read_text().splitlines()[-1]
    assert json.loads(last)["metrics"] == {"loss": None, "corr": None, "dice": 0.5}
    row = epoch_table(tmp_path).iloc[0]
    assert math.isnan(row["loss"])
    assert math.isnan(row["corr"])
    assert row["dice"] == 0.5


def test_a_line_torn_anywhere_costs_only_itself(tmp_path):
    writer = SpoolWriter(tmp_path, 0, first_epoch=0)
    writer.epoch(0, {"loss": 1.0})
    path = fold_file(tmp_path, 0)
    whole = path.stat().st_size
    writer.epoch(1, {"loss": 2.0})
    content = path.read_bytes()
    for cut in range(whole, len(content)):
        path.write_bytes(content[:cut])
        records, offset = read_records(path)
        assert offset == whole
        assert [record["kind"] for record in records] == ["attempt", "epoch"]
        SpoolWriter(tmp_path, 0, first_epoch=1).epoch(1, {"loss": 3.0})
        more, _ = read_records(path, offset)
        # cut before its newline, the line was complete, and the attempt that follows voids it
        torn = [] if cut < len(content) - 1 else ["epoch"]
        assert [record["kind"] for record in more] == [*torn, "attempt", "epoch"]
        assert epoch_table(tmp_path)["loss"].tolist() == [1.0, 3.0]


def test_reading_goes_on_from_the_offset(tmp_path):
    path = fold_file(tmp_path, 0)
    assert read_records(path) == ([], 0)
    writer = SpoolWriter(tmp_path, 0, first_epoch=0)
    _, offset = read_records(path)
    assert read_records(path, offset) == ([], offset)
    writer.epoch(0, {"loss": 1.0})
    records, end = read_records(path, offset)
    assert [record["epoch"] for record in records] == [0]
    assert end == path.stat().st_size


def test_the_driver_records_the_end_of_a_killed_worker(tmp_path):
    SpoolWriter(tmp_path, 0, first_epoch=0).epoch(0, {"loss": 1.0})
    write_state(tmp_path, 0, "failed", "the worker was killed")
    write_state(tmp_path, 1, "failed", "never started")
    assert read_history(tmp_path, 0).state == "failed"
    assert read_history(tmp_path, 0).attempt == 1
    assert read_history(tmp_path, 1).message == "never started"


def test_epochs_count_from_zero(tmp_path):
    with pytest.raises(ValueError, match="epochs count from 0"):
        SpoolWriter(tmp_path, 0, first_epoch=-1)


def test_a_killed_process_leaves_records_that_can_be_read_and_continued(tmp_path):
    endless = (
        "import itertools, sys\n"
        "from pathlib import Path\n"
        "from uncseg.tracking.spool import SpoolWriter\n"
        "assert not {'ray', 'mlflow'} & set(sys.modules)\n"
        "writer = SpoolWriter(Path(sys.argv[1]), 0, first_epoch=0)\n"
        "for epoch in itertools.count():\n"
        "    writer.epoch(epoch, {f'metric_{i}': epoch for i in range(200)})\n"
        "    print(epoch, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", endless, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 50:
            break
    process.kill()
    process.communicate()
    history = read_history(tmp_path, 0)
    assert sorted(history.epochs) == list(range(history.last_epoch + 1))
    assert history.last_epoch >= 50
    SpoolWriter(tmp_path, 0, first_epoch=40).epoch(40, {"metric_0": -1})
    table = epoch_table(tmp_path)
    assert table["epoch"].tolist() == list(range(41))
    assert table["metric_0"].tolist() == [*range(40), -1]


def test_a_folder_that_cannot_be_written_is_an_error_for_the_worker(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match=os.strerror(17)):
        SpoolWriter(blocked, 0, first_epoch=0)
