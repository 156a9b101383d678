"""Records of finished work: used again while their source is unchanged, and only if all their files exist."""

import os

import pytest

from uncseg.files import read_json
from uncseg.kept_records import compute_once, keep_record, kept_record
from uncseg.layout import CaseFiles, region_probabilities
from uncseg.tasks.built_in_tasks import built_in


@pytest.fixture
def computed():
    """How often a record was computed, one entry per time."""
    return []


def compute(computed):
    computed.append(1)
    return {"rows": [1, 2]}


def test_a_record_is_computed_once_per_source(tmp_path, computed):
    file = tmp_path / "case.json"
    first, again = (compute_once(file, "a", lambda: compute(computed)) for _ in range(2))
    assert first == again == {"rows": [1, 2], "source": "a"}
    assert first.items() < read_json(file).items()
    assert len(computed) == 1
    assert compute_once(file, "b", lambda: compute(computed))["source"] == "b"
    assert len(computed) == 2


def test_a_record_is_used_only_while_its_files_are_as_they_were_written(tmp_path):
    file, names = tmp_path / "case.json", ("a.nii.gz", "b.nii.gz")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    record = keep_record(file, "a", {"files": list(names)})
    assert {name: facts["bytes"] for name, facts in record["files"].items()} == dict.fromkeys(names, 8)
    assert kept_record(file, "a") == record
    assert kept_record(file, "b") is None
    for damaged in (b"b.nii.g", b"b.nii.gx", b"", None):  # truncated, altered, emptied, gone
        if damaged is None:
            (tmp_path / "b.nii.gz").unlink()
        else:
            (tmp_path / "b.nii.gz").write_bytes(damaged)
        assert kept_record(file, "a") is None
    (tmp_path / "b.nii.gz").write_bytes(b"b.nii.gz")
    assert kept_record(file, "a") == record


def test_a_large_file_is_read_again_only_where_it_is_younger_than_its_record(tmp_path):
    file, image = tmp_path / "case.json", tmp_path / "map.nii.gz"
    image.write_bytes(bytes(2**21))
    os.utime(image, ns=(0, file_time := 10**18))
    record = keep_record(file, "a", {"files": [image.name]})
    image.write_bytes(bytes(2**21 - 1) + b"x")
    assert kept_record(file, "a") is None
    image.write_bytes(bytes(2**21))  # as it was, at another time, as in a copy
    assert kept_record(file, "a") == record
    image.write_bytes(bytes(2**21 - 1))
    os.utime(image, ns=(0, file_time))
    assert kept_record(file, "a") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_damaged_record_is_computed_again(tmp_path, computed, damage):
    file = tmp_path / "case.json"
    first = compute_once(file, "a", lambda: compute(computed))
    file.write_bytes(damage)
    assert compute_once(file, "a", lambda: compute(computed)) == first
    assert len(computed) == 2


def test_a_record_that_was_cut_or_edited_is_computed_again(tmp_path, computed):
    file = tmp_path / "case.json"
    compute_once(file, "a", lambda: compute(computed))
    whole = file.read_bytes()
    for changed in (whole[:-4], whole.replace(b"2", b"3"), whole.replace(b'"rows"', b'"row"')):
        assert changed != whole
        file.write_bytes(changed)
        compute_once(file, "a", lambda: compute(computed))
        assert file.read_bytes() == whole
    assert len(computed) == 4


def test_nothing_is_kept_if_the_work_fails(tmp_path):
    file = tmp_path / "case.json"
    with pytest.raises(ZeroDivisionError):
        compute_once(file, "a", lambda: {"share": 1 / 0})
    assert kept_record(file, "a") is None


def test_no_file_of_a_case_is_left_whatever_task_it_was_predicted_for(tmp_path):
    glioma, cavity = built_in("gli-2023"), built_in("gli-2024")
    files, other = CaseFiles(tmp_path, "case"), CaseFiles(tmp_path, "case_2")
    maps = [files.map(name) for name in region_probabilities(cavity).values()]
    for file in (*maps, files.segmentation, files.map("uncertainty"), other.segmentation):
        file.touch()
    keep_record(files.scores, "a", {"files": [file.name for file in maps]})
    files.remove(glioma)
    assert list(tmp_path.iterdir()) == [other.segmentation]
