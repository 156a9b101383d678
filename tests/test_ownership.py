"""Folders of one's own: marked where they were made; not those of others, moved ones, or ones with a forged mark."""

import json
import os
import shutil

import pytest

from uncseg.ownership import MARK, is_own, is_signed, make_own, mark_as_own, sign


@pytest.fixture(autouse=True)
def key_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "uncseg" / "key"


@pytest.fixture
def folder(tmp_path):
    make_own(tmp_path / "runs" / "demo")
    return tmp_path / "runs" / "demo"


def test_a_folder_is_own_where_it_was_made_and_after_every_command(folder, key_file):
    assert is_own(folder)
    mark = (folder / MARK).read_text()
    make_own(folder)
    assert (folder / MARK).read_text() == mark
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert len(key_file.read_bytes()) == 32


def test_a_link_to_the_folder_is_the_same_place(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert is_own(tmp_path / "link")


def test_moved_and_copied_folders_are_not_own(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copied")
    folder.rename(tmp_path / "moved")
    assert not is_own(tmp_path / "copied")
    assert not is_own(tmp_path / "moved")


def test_what_was_in_a_folder_before_does_not_become_own(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "manifest.json").write_text("{}")
    make_own(given)
    assert not is_own(given)


def test_a_folder_that_a_kill_left_empty_becomes_own(tmp_path):
    left = tmp_path / "left"
    left.mkdir()
    (left / f".part-1-{MARK}").write_text("{")
    (left / ".lock").touch()
    (left / "trials").mkdir()
    make_own(left)
    assert is_own(left)


@pytest.mark.parametrize("change", ["other user", "no key", "readable key", "short key", "link"])
def test_a_mark_of_another_key_does_not_count(folder, key_file, change):
    if change == "other user":
        key_file.write_bytes(os.urandom(32))
    elif change == "no key":
        key_file.unlink()
    elif change == "readable key":
        key_file.chmod(0o644)
    elif change == "short key":
        key_file.write_bytes(b"")
    else:
        key_file.rename(key_file.with_name("elsewhere"))
        key_file.symlink_to(key_file.with_name("elsewhere"))
    assert not is_own(folder)
    mark_as_own(folder)
    assert is_own(folder)
    assert not key_file.is_symlink()
    assert key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"nonce": 1, "code": null}', '{"nonce": "a", "code": "ü"}', "\0" * 2000]
)
def test_any_other_text_is_no_mark(folder, text):
    (folder / MARK).write_text(text)
    assert not is_own(folder)


def test_a_pipe_in_place_of_the_mark_is_not_waited_for(folder):
    (folder / MARK).unlink()
    os.mkfifo(folder / MARK)
    assert not is_own(folder)


def test_each_part_of_the_mark_counts(folder, tmp_path):
    mark = json.loads((folder / MARK).read_text())
    for name in mark:
        (folder / MARK).write_text(json.dumps(mark | {name: mark[name][::-1]}))
        assert not is_own(folder)
    other = tmp_path / "runs" / "other"
    other.mkdir()
    (other / MARK).write_text(json.dumps(mark))
    assert not is_own(other)


def test_a_signed_text_is_known_by_this_user_alone(key_file):
    code = sign("http://host:5000")
    assert is_signed("http://host:5000", code)
    assert not is_signed("http://host:5001", code)
    for wrong in ("", "ü", code[:-1], code[::-1]):
        assert not is_signed("http://host:5000", wrong)
    key_file.write_bytes(os.urandom(32))
    assert not is_signed("http://host:5000", code)
    key_file.unlink()
    assert not is_signed("http://host:5000", code)


def test_without_a_place_for_the_key_nothing_is_own_and_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    make_own(tmp_path / "demo")
    assert (tmp_path / "demo").is_dir()
    assert not is_own(tmp_path / "demo")
    assert sign("http://host:5000") == ""
    assert not is_signed("http://host:5000", "")
