"""Records of finished work: used again while their source is unchanged, and only if all their files exist."""

import pytest

from uncseg.files import compute_once, keep_record, kept_record, read_json
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
    assert first == again == read_json(file) == {"rows": [1, 2], "source": "a"}
    assert len(computed) == 1
    assert compute_once(file, "b", lambda: compute(computed))["source"] == "b"
    assert len(computed) == 2


def test_a_record_without_one_of_its_files_is_not_used(tmp_path):
    file, image = tmp_path / "case.json", tmp_path / "case.nii.gz"
    image.touch()
    record = keep_record(file, "a", {"files": [image.name]})
    assert kept_record(file, "a") == record
    assert kept_record(file, "b") is None
    image.unlink()
    assert kept_record(file, "a") is None


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
