"""A cohort's evaluation knows its cohort by the content of the cases, wherever the folder lies."""

import pytest

from uncseg.errors import ProblemsFound
from uncseg.files import write_json
from uncseg.runs.cohort_evaluation import COHORT, _refuse_another


@pytest.fixture
def record(tmp_path):
    write_json(tmp_path / COHORT, {"path": "/before/cohort", "cases": {"a": "1", "b": "2"}})
    return tmp_path / COHORT


@pytest.mark.parametrize("content", [{"a": "1", "b": "2"}, {"a": "1"}, {"a": "1", "b": "2", "c": "3"}])
def test_a_moved_cohort_is_the_same(record, tmp_path, content):
    _refuse_another(record, tmp_path / "cohort", content)


@pytest.mark.parametrize("content", [{"a": "1", "b": "9"}, {"c": "3"}, {}])
def test_another_cohort_of_the_name_is_refused(record, tmp_path, content):
    with pytest.raises(ProblemsFound, match="/before/cohort"):
        _refuse_another(record, tmp_path / "cohort", content)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"[1]", b'{"path": 1, "cases": 3}'])
def test_a_damaged_record_is_written_again(record, tmp_path, damage):
    record.write_bytes(damage)
    _refuse_another(record, tmp_path / "cohort", {"a": "1"})
