"""Prepared cases from someone else: read as values, and refused where they need code."""

import pickle
from collections import OrderedDict

import blosc2
import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from support.intruder import Intruder
from uncseg.dataset.prepared_cases import PreparedCases
from uncseg.errors import ProblemsFound

SHAPE = (1, 8, 8, 8)
PROPERTIES = {
    "spacing": [1.0, np.float64(1.0), np.float32(2.0)],
    "class_locations": {1: np.argwhere(np.ones(SHAPE)), 2: np.arange(8)[::2]},
    "sitk_stuff": OrderedDict(origin=(0.0, 0.0, 0.0)),
    "shape": np.int64(8),
}


@pytest.fixture
def folder(tmp_path):
    """A folder with one prepared case, as nnU-Net writes it."""
    values = np.arange(512, dtype=np.float32).reshape(SHAPE)
    (tmp_path / "cases").mkdir()
    target = str(tmp_path / "cases" / "CASE")
    nnUNetDatasetBlosc2.save_case(values, values.astype(np.int16), PROPERTIES, target, (1, 8, 8, 8), (1, 8, 8, 8))
    return tmp_path / "cases"


def refusal(folder):
    with pytest.raises(ProblemsFound, match="folder of prepared cases") as caught:
        PreparedCases(str(folder), ["CASE"]).load_case("CASE")
    (problem,) = caught.value.problems
    assert problem.where.startswith(str(folder / "CASE"))
    return problem.found


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_what_nnunet_writes_is_read_as_it_is(folder, protocol):
    (folder / "CASE.pkl").write_bytes(pickle.dumps(PROPERTIES, protocol))
    data, labels, _, properties = PreparedCases(str(folder), ["CASE"]).load_case("CASE")
    assert data[0, 7, 7, 7] == labels[0, 7, 7, 7] == 511
    np.testing.assert_equal(properties, PROPERTIES)


@pytest.mark.parametrize("place", ["alone", "in a list", "in an array"])
def test_code_is_not_run(folder, tmp_path, place):
    mark = Intruder(tmp_path / "intruded")
    array = np.empty(1, dtype=object)
    array[0] = mark
    inner = {"alone": mark, "in a list": [1, [mark]], "in an array": array}[place]
    (folder / "CASE.pkl").write_bytes(pickle.dumps(PROPERTIES | {"extra": inner}))
    assert "posix.mkdir" in refusal(folder)
    assert not mark.mark.exists()
    pickle.loads((folder / "CASE.pkl").read_bytes())
    assert mark.mark.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", pickle.dumps(PROPERTIES)[:-40], pickle.dumps([1]), b"text"])
def test_damaged_properties_are_named(folder, content):
    (folder / "CASE.pkl").write_bytes(content)
    assert refusal(folder)


@pytest.mark.parametrize("name", ["CASE.b2nd", "CASE_seg.b2nd"])
def test_a_recipe_in_place_of_voxels_is_not_carried_out(folder, tmp_path, name):
    (folder / name).unlink()
    operand = blosc2.asarray(np.ones(SHAPE), urlpath=str(tmp_path / "operand.b2nd"))
    blosc2.lazyexpr("a + 1", {"a": operand}).save(urlpath=str(folder / name))
    assert "lazy" in refusal(folder).lower()
