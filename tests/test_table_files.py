"""Tables on disk."""

import math

import pandas as pd
import pyarrow as pa
import pytest

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
