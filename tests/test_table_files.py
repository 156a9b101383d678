"""Tables on disk."""

import math

import pandas as pd
import pyarrow as pa
import pytest

from uncseg.errors import DamagedFile
from uncseg.table_files import read_table, write_table

TABLE = pd.DataFrame({"case": ["a", "b"], "fold": [0, 1], "dice_wt": [0.8, math.nan]})


def test_a_table_is_written_as_parquet_and_csv(tmp_path):
    write_table(TABLE, tmp_path, "cases")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cases.parquet"), TABLE)
    assert pd.read_csv(tmp_path / "cases.csv").shape == TABLE.shape
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cases.csv", "cases.parquet"]


def test_a_table_is_read_as_it_was_written(tmp_path):
    assert read_table(tmp_path, "cases") is None
    write_table(TABLE, tmp_path, "cases")
    pd.testing.assert_frame_equal(read_table(tmp_path, "cases"), TABLE)


def test_nothing_is_left_of_a_table_that_could_not_be_written(tmp_path):
    unwritable = pd.DataFrame({"column": [1, "text", object()]})
    with pytest.raises((pa.ArrowException, TypeError)):
        write_table(unwritable, tmp_path, "table")
    assert list(tmp_path.iterdir()) == []


TEXTS = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(1)": "'@SUM(1)",
    "  =1": "'  =1",
    "\t=1": "'\t=1",
    "＝1": "'＝1",
    "-1.5e-3": "-1.5e-3",
    "-inf": "-inf",
    "BraTS-GLI-00001": "BraTS-GLI-00001",
    "a=b": "a=b",
    "": "",
}


def test_a_csv_holds_no_formulas_and_the_parquet_every_character(tmp_path):
    frame = pd.DataFrame({"case": list(TEXTS), "=dice": [-0.5] * len(TEXTS)})
    write_table(frame, tmp_path, "cases")
    pd.testing.assert_frame_equal(read_table(tmp_path, "cases"), frame)
    csv = pd.read_csv(tmp_path / "cases.csv", dtype=str, keep_default_na=False)
    assert list(csv) == ["case", "'=dice"]
    assert dict(zip(TEXTS, csv["case"], strict=True)) == TEXTS
    assert set(csv["'=dice"]) == {"-0.5"}


def test_a_damaged_table_is_named_wherever_its_bits_changed(tmp_path):
    frame = pd.DataFrame({"case": ["a", "b"] * 500, "dice": [0.25, 0.75] * 500})
    write_table(frame, tmp_path, "cases")
    file = tmp_path / "cases.parquet"
    whole = file.read_bytes()
    flipped = [bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in range(100, len(whole) // 4, 97)]
    for damaged in (b"", b"{", whole[:-1], whole[: len(whole) // 2], bytes(len(whole)), *flipped):
        file.write_bytes(damaged)
        try:
            found = read_table(tmp_path, "cases", advice="make it again")
        except DamagedFile as error:
            said = [(problem.where, problem.advice) for problem in error.problems]
        else:  # a bit that Arrow does not use
            said = [] if damaged not in flipped else [(str(file), "make it again")]
            pd.testing.assert_frame_equal(found, frame)
        assert said == [(str(file), "make it again")]
    file.write_bytes(whole)
    with pytest.raises(DamagedFile):
        read_table(tmp_path, "cases", ["fold"])


def test_one_changed_bit_anywhere_in_a_table_is_noticed(tmp_path):
    write_table(TABLE, tmp_path, "cases")
    file = tmp_path / "cases.parquet"
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedFile):
            read_table(tmp_path, "cases")
    file.write_bytes(whole)
    pd.testing.assert_frame_equal(read_table(tmp_path, "cases"), TABLE)
