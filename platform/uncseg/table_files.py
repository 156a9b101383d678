"""Tables as files: Parquet, which programs read, and CSV beside it, which people read."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from uncseg.files import whole_file


def write_table(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.parquet and NAME.csv, each whole or not at all."""
    with whole_file(folder / f"{name}.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    with whole_file(folder / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False)


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


def read_table(folder: Path, name: str) -> pd.DataFrame | None:
    """Return a table that :func:`write_table` wrote, or None where it is not written yet."""
    file = folder / f"{name}.parquet"
    return pd.read_parquet(file) if file.is_file() else None
