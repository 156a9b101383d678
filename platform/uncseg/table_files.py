"""Tables as files: Parquet, which programs read, and CSV beside it, which people read."""

from pathlib import Path

import pandas as pd

from uncseg.files import whole_file


def write_table(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write NAME.parquet and NAME.csv, each whole or not at all."""
    with whole_file(folder / f"{name}.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    with whole_file(folder / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False)


def read_table(folder: Path, name: str) -> pd.DataFrame | None:
    """Return a table that :func:`write_table` wrote, or None where it is not written yet."""
    file = folder / f"{name}.parquet"
    return pd.read_parquet(file) if file.is_file() else None
