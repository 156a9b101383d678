"""Compare the results of two runs bit by bit, as after a change that must not change any figure.

    python tests/performance/compare_runs.py RUN_A RUN_B

Compares Table 1, Table 2, the per-case table, the scores, the metrics of every epoch (except times and memory) and
every out-of-fold image. Prints one line per table and one for all images, and exits with 1 if anything differs.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

TABLES = ("table1", "table2", "table3", "table4", "per_case", "per_region", "scores", "scores_summary", "epochs")
MEASURED = ("system/", "time_ms")
"""How columns begin that measure the machine and not the training."""


def differences(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    """Return the columns that differ in name, order, type or in any bit of a value; empty where none does."""
    if list(a.columns) != list(b.columns):
        return [f"columns {sorted(set(a.columns) ^ set(b.columns)) or 'in another order'}"]
    if len(a) != len(b):
        return [f"{len(a)} rows against {len(b)}"]
    return [column for column in a.columns if not _same_bits(a[column], b[column])]


def _same_bits(a: pd.Series, b: pd.Series) -> bool:
    if a.dtype != b.dtype:
        return False
    if a.dtype.kind in "fiub":
        return a.to_numpy().tobytes() == b.to_numpy().tobytes()
    return a.astype(str).tolist() == b.astype(str).tolist()


def compare_tables(first: Path, second: Path) -> bool:
    """Print a line per table; return whether all are equal."""
    equal = True
    for name in TABLES:
        files = [run / "tables" / f"{name}.parquet" for run in (first, second)]
        a, b = (
            frame.loc[:, [c for c in frame.columns if not c.startswith(MEASURED)]]
            for frame in map(pd.read_parquet, files)
        )
        found = differences(a, b)
        print(
            f"{name}: {len(a)} rows, {len(a.columns)} columns: {'differs: ' + ', '.join(found) if found else 'equal'}"
        )
        equal = equal and not found
    return equal


def compare_images(first: Path, second: Path) -> bool:
    """Print a line about the out-of-fold images; return whether all voxels of all images are equal."""
    names = [sorted(file.name for file in (run / "out_of_fold").glob("*.nii.gz")) for run in (first, second)]
    if names[0] != names[1]:
        print(f"images: other files: {sorted(set(names[0]) ^ set(names[1]))[:5]}")
        return False
    differing = []
    for name in names[0]:
        a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(run / "out_of_fold" / name))) for run in (first, second))
        if a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            differing.append(name)
    print(f"images: {len(names[0])}: {'differ: ' + ', '.join(differing[:5]) if differing else 'equal'}")
    return not differing


def main() -> int:
    """Return the exit code."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    first, second = map(Path, sys.argv[1:])
    equal = [compare_tables(first, second), compare_images(first, second)]
    print("every bit is equal" if all(equal) else "the runs differ")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
