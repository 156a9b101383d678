"""JSON that every reader takes: NaN is null, and tables that are made of it again are the same."""

import ast
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import uncseg
from uncseg.files import digest, json_text, read_json, write_json
from uncseg.kept_records import compute_once
from uncseg.report.page import PageSection, Viewer, write_page
from uncseg.report.slices import Sheet
from uncseg.table_files import read_table, table_of, write_table
from uncseg.tracking.spool import SpoolWriter, epoch_table

NUMBERS = {
    "nan": math.nan,
    "infinite": [math.inf, -math.inf, (1.5, math.nan)],
    "numpy": [np.float32(0.5), np.float64("nan"), np.int64(3), np.bool_(True), np.array([[1.0, np.inf]])],
    "kept": [None, True, 0, -1.25, "NaN"],
}
AS_JSON = {
    "nan": None,
    "infinite": [None, None, [1.5, None]],
    "numpy": [0.5, None, 3, True, [[1.0, None]]],
    "kept": [None, True, 0, -1.25, "NaN"],
}


def strict(text):
    """Parse JSON as other languages do, which know neither NaN nor Infinity."""

    def fail(constant):
        raise AssertionError(f"{constant} in {text[:200]}")

    return json.loads(text, parse_constant=fail)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    assert strict(json_text(NUMBERS)) == AS_JSON
    write_json(tmp_path / "a.json", NUMBERS)
    assert strict((tmp_path / "a.json").read_text()) == AS_JSON


def test_finite_content_is_written_as_python_writes_it():
    content = {"b": [1, 2.5, "ä", None], "a": {"c": 1e-300, "0": True}}
    assert json_text(content, indent=2, sort_keys=True) == json.dumps(content, indent=2, sort_keys=True)
    assert json_text(content) == json.dumps(content)


def test_what_has_no_form_in_json_is_refused_and_no_file_is_left(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": {1, 2}})
    assert not list(tmp_path.iterdir())


def test_a_record_is_the_same_when_it_is_made_and_when_it_is_read(tmp_path):
    first, again = (compute_once(tmp_path / "case.json", "source", lambda: NUMBERS) for _ in range(2))
    assert first == again == AS_JSON | {"source": "source"}
    assert list(first) == list(again) == [*NUMBERS, "source"]


def test_no_other_module_makes_json():
    root = Path(uncseg.__file__).parent
    makers = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps") and ast.unparse(node.value) == "json"
    }
    assert makers == {"files.py"}


def test_digests_tell_numbers_apart_and_take_no_objects():
    contents = [math.nan, None, math.inf, 0, 0.0, "NaN", [], [[]], np.arange(3), np.arange(2000), np.arange(2001)]
    assert len({digest(content) for content in contents}) == len(contents)
    assert digest({"a": 1, "b": np.float64(0.5)}) == digest({"b": 0.5, "a": np.int64(1)})
    assert digest(Path("a/b")) == digest("a/b")
    for content in ({"a", "b"}, object()):  # their texts differ from process to process
        with pytest.raises(TypeError):
            digest(content)


def test_a_digest_is_the_sha256_of_sorted_json():
    text = '{"a": null, "b": [1, 2.5]}'
    known = "6b1d84977084473f4b3b012fc8f1d08257499895d136f26cc7b5c865d2f19e23"  # by sha256sum
    assert digest({"b": [1, 2.5], "a": None}) == known == hashlib.sha256(text.encode()).hexdigest()


ROWS = [
    {"case": "a", "dice": 0.5, "hd95": math.nan, "voxels": 3, "review": True, "reason": None, "bins": [[1, 2]]},
    {"case": "b", "dice": math.nan, "hd95": math.nan, "voxels": 4, "review": False, "reason": None, "bins": [[3, 4]]},
]


@pytest.mark.parametrize("reason", [None, "no tumour found"])
def test_a_table_of_records_is_that_of_their_rows_to_the_bit(tmp_path, reason):
    rows = [ROWS[0] | {"reason": reason}, ROWS[1]]
    write_json(tmp_path / "rows.json", rows)
    table = table_of(read_json(tmp_path / "rows.json", shape=list), words=["reason"])[list(ROWS[0])]
    write_table(table, tmp_path, "kept")
    write_table(pd.DataFrame(rows), tmp_path, "direct")  # with NaN, as before they were JSON
    assert (tmp_path / "kept.csv").read_bytes() == (tmp_path / "direct.csv").read_bytes()
    kept, direct = (read_table(tmp_path, name) for name in ("kept", "direct"))
    pd.testing.assert_frame_equal(kept, direct)
    assert kept["hd95"].dtype == kept["dice"].dtype == np.float64
    assert kept["voxels"].dtype == np.int64
    assert kept["review"].dtype == bool


def test_a_column_that_begins_with_null_is_of_numbers():
    table = table_of([{"a": None, "b": None}, {"a": 3, "b": None}])
    assert table.dtypes.to_dict() == {"a": np.float64, "b": np.float64}
    assert math.isnan(table["a"][0])
    assert table["a"][1] == 3
    assert table_of([]).empty


def test_the_spool_is_strict_and_reads_nan_back(tmp_path):
    spool = SpoolWriter(tmp_path, 0, first_epoch=0)
    spool.epoch(0, {"a": math.nan, "b": np.float32(0.5), "c": math.inf})
    for line in spool.path.read_text().splitlines():
        strict(line)
    table = epoch_table(tmp_path)
    assert table["b"].tolist() == [0.5]
    assert table[["a", "c"]].isna().all().all()
    assert table["a"].dtype == np.float64


def test_a_page_holds_strict_json(tmp_path):
    sheet = Sheet(width=math.nan, height=np.int64(3), slices=1, columns=1, first=0, layers={"image": "data:"})
    page = tmp_path / "page.html"
    write_page(page, "title", [PageSection("run", viewers=[Viewer("case", "anchor", "text", sheet)])])
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("const sheets = ")]
    (shown,) = strict(line.removeprefix("const sheets = ").removesuffix(";"))
    assert shown == {"width": None, "height": 3, "slices": 1, "columns": 1, "first": 0, "layers": {"image": "data:"}}
