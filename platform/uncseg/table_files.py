"""Tables as files: Parquet, which programs read, and CSV beside it, which people read."""

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
}
"""Columns without which a run's table is another one."""


def write_table(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.parquet and NAME.csv, each whole or not at all.

    In the CSV a text that a spreadsheet would compute has an apostrophe before it.
    """
    with whole_file(folder / f"{name}.parquet", verify=_read) as temporary:
        frame.to_parquet(temporary, index=False, write_page_checksum=True)
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


def _read(file: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    names = None if columns is None else list(columns)
    return pd.read_parquet(file, columns=names, page_checksum_verification=True)


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
    if not file.is_file():
        return None
    try:
        table = _read(file, columns)
    except Exception as error:  # whatever Arrow says of bytes that are no table
        raise DamagedFile.of(file, first_line(error)[:160], "the table that was written", advice) from error
    if missing := [column for column in _LEAST.get(name, ()) if columns is None and column not in table]:
        raise DamagedFile.of(file, f"no column {listed(missing)}", "the table that was written", advice)
    return table
