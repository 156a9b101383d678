"""Tables as files: Parquet, which programs read, and CSV beside it, which people read."""

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from uncseg.errors import DamagedFile, first_line, listed
from uncseg.files import whole_file

EVALUATE = "delete it, and give the command that wrote it again: uncseg evaluate for a run"


_LEAST = {
    "per_case": ("case", "patient", "fold", "dice_mean"),
    "scores": ("case", "patient", "region", "dice"),
    "scores_summary": ("region", "figure"),
    "table1": ("model", "fold", "cases"),
    "table2": ("protocol", "estimator"),
    "table3": ("estimator", "floor"),
    "table4": ("region", "estimator", "floor"),
}
"""Columns without which a run's table is another one."""


def write_table(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.parquet and NAME.csv, each whole or not at all.

    In the CSV a text that a spreadsheet would compute has an apostrophe before it.
    """
    with whole_file(folder / f"{name}.parquet", verify=_read) as temporary:
        _write(frame, temporary)
    with whole_file(folder / f"{name}.csv") as temporary:
        _without_formulas(frame).to_csv(temporary, index=False)


_FORMULA = re.compile(r"\s*[=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH COMMERCIAL AT}]|[\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts, column names included, are no formulas; names of cases come from strangers."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    plain = frame.copy()
    plain[texts.columns] = texts.map(_defused)
    return plain.rename(columns=_defused)


def _defused(value: Any) -> Any:
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


_KEY = b"uncseg.sha256"
_UNKNOWN = b"0" * 64
_MARK = _KEY + b"\x18\x40"
"""The digest's key in a Parquet footer, and what stands between it and its value: a text of 64 bytes follows."""


def _write(frame: pd.DataFrame, file: Path) -> None:
    """Write a table whose footer holds the SHA-256 of the whole file, in which zeros stand for the digest itself.

    Parquet's own checksums are those of pages: they do not cover the footer, which names the columns.
    """
    import pyarrow as pa  # takes a moment to import
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: _UNKNOWN})
    pq.write_table(table, file, write_page_checksum=True)
    content = file.read_bytes()
    before, mark, after = content.rpartition(_MARK + _UNKNOWN)
    if not mark:
        raise ValueError("the footer of a Parquet file has another form than expected")
    file.write_bytes(before + _MARK + hashlib.sha256(content).hexdigest().encode() + after)


def _read(file: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    content = file.read_bytes()
    before, _, after = content.rpartition(_MARK)
    digest, after = after[: len(_UNKNOWN)], after[len(_UNKNOWN) :]
    if hashlib.sha256(before + _MARK + _UNKNOWN + after).hexdigest().encode() != digest:
        raise ValueError("bytes that are not those that were written: their SHA-256 differs")
    names = None if columns is None else list(columns)
    return pd.read_parquet(io.BytesIO(content), columns=names, page_checksum_verification=True)


def table_of(rows: Iterable[Mapping[str, Any]], words: Collection[str] = ()) -> pd.DataFrame:
    """Return rows that were kept as JSON, which has null for NaN, as a table with float columns again.

    A column of numbers and null is float, and so is one without any value, unless it is among ``words``.
    """
    frame = pd.DataFrame(list(rows))
    for name in [name for name in frame.columns if frame[name].dtype.kind == "O" and name not in words]:
        known = frame[name].dropna()
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
            frame[name] = frame[name].astype(float)
    return frame


def read_table(
    folder: Path, name: str, columns: Sequence[str] | None = None, advice: str = EVALUATE
) -> pd.DataFrame | None:
    """Return a table that :func:`write_table` wrote, or None where it is not written yet.

    Args:
        folder, name: of the table.
        columns: those to read; None: all.
        advice: what writes the table again, in the imperative mood.

    Raises:
        DamagedFile: the file is truncated or altered, or lacks a column.
    """
    file = folder / f"{name}.parquet"
    if not file.exists():
        return None
    try:
        table = _read(file, columns)
    except Exception as error:  # whatever Arrow says of bytes that are no table
        raise DamagedFile.of(file, first_line(error)[:160], "the table that was written", advice) from error
    if missing := [column for column in _LEAST.get(name, ()) if columns is None and column not in table]:
        raise DamagedFile.of(file, f"no column {listed(missing)}", "the table that was written", advice)
    return table
