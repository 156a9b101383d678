"""Files are written as a whole or not at all, and damaged ones are named when they are read."""

import contextlib
import errno
import json
import os
import pickle
import subprocess
import sys

import pytest

from uncseg.errors import DamagedFile, storage_error
from uncseg.files import file_contents, file_digest, not_whole, read_json, read_text, whole_file, write_json
from uncseg.partial_files import partial_folder, remove_partial

WRITER = """
import sys
from pathlib import Path
from uncseg.files import whole_file
from uncseg.partial_files import partial_folder
with whole_file(Path(sys.argv[1], "a.nii.gz")) as temporary, partial_folder(Path(sys.argv[1])) as folder:
    temporary.write_bytes(b"half")
    (folder / "half").write_bytes(b"half")
    print("written", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_bytes(file, content, error=None, **how):
    with whole_file(file, **how) as temporary:
        temporary.write_bytes(content)
        if error is not None:
            raise error


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    file = tmp_path / "new" / "a.nii.gz"
    with whole_file(file) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.name.endswith("a.nii.gz")
        assert not file.exists()
    assert file.read_bytes() == b"new"
    assert names(file.parent) == ["a.nii.gz"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_file_that_could_not_be_written_leaves_the_old_one(tmp_path, error):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(type(error)):
        write_bytes(file, b"half", error)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_that_is_not_as_it_was_to_be_written_keeps_no_name(tmp_path):
    def verify(file):
        raise not_whole(file, f"{file.stat().st_size} bytes")

    with pytest.raises(OSError, match=r"not written as a whole \(4 bytes\)"):
        write_bytes(tmp_path / "a.txt", b"half", verify=verify)
    assert not names(tmp_path)


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 120 + ".nii.gz", "b" * 248 + ".nii.gz"])
def test_names_may_be_as_long_as_the_disk_allows(tmp_path, name):
    with whole_file(tmp_path / name) as temporary:
        temporary.touch()
    assert names(tmp_path) == [name]


def test_only_what_killed_processes_of_ours_left_is_removed(tmp_path):
    (tmp_path / "below").mkdir()
    foreign = [".part-1", ".part-notes.txt", ".part-0123456789abcdef", "a.part-0123456789abcdef-b"]
    for name in foreign:
        (tmp_path / "below" / name).touch()
    command = [sys.executable, "-c", WRITER, str(tmp_path / "below")]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"written\n"
        assert len(names(tmp_path / "below")) == len(foreign) + 4
        writers[0].kill()
        writers[0].wait()
        remove_partial(tmp_path)
        assert len(names(tmp_path / "below")) == len(foreign) + 2
        writers[1].communicate()  # it goes on to its end
        assert writers[1].returncode == 0
        assert names(tmp_path / "below") == sorted([*foreign, "a.nii.gz"])
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def test_a_link_of_such_a_name_is_left_with_what_it_points_to(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    inside.mkdir()
    outside.write_text("mine")
    (inside / ".part-0123456789abcdef-a").symlink_to(outside)
    remove_partial(inside)
    assert outside.read_text() == "mine"
    assert len(names(inside)) == 1


def test_nothing_is_left_of_a_partial_folder(tmp_path):
    with contextlib.suppress(ZeroDivisionError), partial_folder(tmp_path) as folder:
        (folder / "file").touch()
        raise ZeroDivisionError
    assert not names(tmp_path)


DAMAGES = {
    "absent": None,
    "empty": b"",
    "zeros": bytes(100),  # what a power cut leaves on some file systems
    "blank": b" \n",
    "cut": b'{"a": [1, 2',
    "brace": b"{",
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "other keys": b'{"b": 1}',
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "binary": bytes(range(256)),
    "deep": b"[" * 200_000,
    "long number": b'{"a": ' + b"9" * 5000 + b"}",
    "two": b'{"a": 1}{"a": 1}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_makes_it_again(tmp_path, damage):
    file = tmp_path / "ours.json"
    if DAMAGES[damage] is not None:
        file.write_bytes(DAMAGES[damage])
    with pytest.raises(DamagedFile) as raised:
        read_json(file, "give the command again", keys=["a"])
    (problem,) = raised.value.problems
    assert problem.where == str(file)
    assert problem.found
    assert len(problem.found) < 200
    assert problem.advice == "give the command again"
    assert raised.value.exit_code == 1
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # Ray tasks raise it


def test_a_whole_file_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"a": "ä"})
    assert read_json(tmp_path / "a.json", keys=["a"]) == {"a": "ä"}
    assert json.loads(read_text(tmp_path / "a.json")) == {"a": "ä"}


@pytest.mark.parametrize("content", [{}, [{"train": "a"}], [["a"]], [{"train": [1]}]])
def test_a_file_of_another_shape_is_damaged(tmp_path, content):
    write_json(tmp_path / "a.json", content)
    with pytest.raises(DamagedFile):
        read_json(tmp_path / "a.json", shape=list[dict[str, list[str]]])
    write_json(tmp_path / "a.json", [{"train": ["a"]}])
    assert read_json(tmp_path / "a.json", shape=list[dict[str, list[str]]]) == [{"train": ["a"]}]


def test_only_what_lies_in_the_place_of_another_kind_is_said_to(tmp_path):
    """A folder that is there already, and a file that has no name, are errors of the program, or of a library."""
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.touch()
    folder.mkdir()
    link.symlink_to("nothing")
    number = os.open(file, os.O_RDONLY)
    in_place = {file: lambda: (file / "a").mkdir(), folder: folder.read_text, link: lambda: link.mkdir(exist_ok=True)}
    for place, act in in_place.items():
        with pytest.raises(OSError, match="Errno") as caught:
            act()
        (problem,) = storage_error(caught.value).problems
        assert problem.where == str(place)
        assert problem.found == ("a folder" if place == folder else "a file")
    for act in (folder.mkdir, lambda: os.scandir(number)):
        with pytest.raises(OSError, match="Errno") as caught:
            act()
        assert storage_error(caught.value) is None
    os.close(number)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_has_no_end_has_no_digest(tmp_path, kind):
    file = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        file_digest(file)
    assert file_contents([file]) == [""]
