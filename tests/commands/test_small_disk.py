"""A disk becomes full while a command writes: no half file keeps a final name, and the command goes on from there."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import start_uncseg
from support.small_disk import small_disk


@pytest.fixture
def disk(tmp_path):
    """A disk of 400 KiB."""
    with small_disk(tmp_path / "disk", "400k") as made:
        if not made.can_be_filled:
            pytest.skip("mounting needs root")
        yield made


def whole(folder):
    """Return the content of every image by name, after it was read to its checksum."""
    assert not list(Path(folder).rglob(".part-*"))
    files = list(Path(folder).rglob("*.nii.gz"))
    for file in files:
        with gzip.open(file) as stream:
            assert len(stream.read()) > 352
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_phantoms_on_a_full_disk_are_whole_or_absent_and_written_when_there_is_room(disk, tmp_path):
    command = ["phantom", disk.folder / "cases", "--cases", "4", "--size", "32"]
    output = start_uncseg(*command, log=tmp_path / "full.log", before=disk.inside).require(1)
    assert "No space left on device" in output
    assert "Traceback" not in output
    before = whole(disk.seen / "cases")
    assert before
    disk.resize("20m")
    start_uncseg(*command, log=tmp_path / "room.log", before=disk.inside).require()
    start_uncseg("phantom", tmp_path / "elsewhere", *command[2:], log=tmp_path / "other.log").require()
    after = whole(disk.seen / "cases")
    assert {name: after[name] for name in before} == before
    assert after == whole(tmp_path / "elsewhere")
    assert len(after) == 4 * 6


WRITE = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from uncseg.dataset.volumes import Geometry, write_array, write_volume
from uncseg.files import write_json
from uncseg.method.checkpoints import RESUME_KEYS, save_resume_file
from uncseg.report.style import save_figure
from uncseg.table_files import write_table
numbers = np.random.default_rng(0).random((64, 64, 64), dtype=np.float32)
figure = Figure()
figure.add_subplot().imshow(numbers[0])
folder = Path(sys.argv[1])
ways = {
    "volume.nii.gz": lambda file: write_volume(
        file, numbers, Geometry((64, 64, 64), (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    ),
    "array.npy": lambda file: write_array(file, numbers),
    "table.parquet": lambda file: write_table(pd.DataFrame({"a": numbers.ravel()}), file.parent, file.stem),
    "content.json": lambda file: write_json(file, {"a": numbers.ravel().tolist()}),
    "resume.pt": lambda file: save_resume_file(file, dict.fromkeys(RESUME_KEYS, numbers)),
    "figure.png": lambda file: save_figure(figure, file, 400),
}
for _ in range(2):
    for name in ways:
        try:
            ways[name](folder / name)
        except (OSError, RuntimeError) as error:
            print(name, "refused", error, flush=True)
        else:
            print(name, "written", flush=True)
    sys.stdin.readline()
"""


def test_no_writer_leaves_half_a_file(disk, tmp_path):
    ballast = disk.seen / "ballast"
    ballast.write_bytes(bytes(380_000))  # the first pages fit
    command = [*disk.inside, sys.executable, "-c", WRITE, str(disk.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        said = [writer.stdout.readline() for _ in range(6)]
        assert all(" refused " in line for line in said), said
        assert [path.name for path in disk.seen.iterdir()] == ["ballast"]
        ballast.unlink()
        disk.resize("100m")
        rest, _ = writer.communicate("go on\n\n")
    assert rest.count("written") == 6, rest
