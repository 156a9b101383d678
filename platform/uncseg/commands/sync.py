"""``uncseg sync``: MLflow as the folder of a run, a sweep or a benchmark says."""

from pathlib import Path

from uncseg.layout import BenchmarkFolder, SweepFolder
from uncseg.studies.benchmark.benchmark_mlflow import sync_benchmark
from uncseg.studies.sweep.sweep_mlflow import sync_sweep
from uncseg.tracking.syncer import sync_run


def sync_folder(root: Path, tracking_uri: str | None = None) -> int:
    """Push what MLflow has not; the number of epochs and uploads that are left.

    Args:
        root: folder of a run, a sweep or a benchmark.
        tracking_uri: another MLflow than the experiment's.

    Raises:
        ProblemsFound: it is none of them, or MLflow cannot be reached.
    """
    if BenchmarkFolder(root).content.is_file():
        return sync_benchmark(root, tracking_uri)
    return (sync_sweep if SweepFolder(root).content.is_file() else sync_run)(root, tracking_uri)
