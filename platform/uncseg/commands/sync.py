"""``uncseg sync``: bring MLflow to what the folder of a run, a sweep or a benchmark says."""

from pathlib import Path

from uncseg.console import console
from uncseg.layout import RunFolder
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.benchmark.benchmark_mlflow import log_benchmark
from uncseg.studies.parent_run import sync_study
from uncseg.studies.study_folder import SweepFolder, find_study, warn_of_changed_runs
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.sweep_mlflow import log_sweep
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.syncer import sync_run


def sync_folder(root: Path, tracking_uri: str | None = None) -> int:
    """Push what MLflow, by default the experiment's, does not have; return the number of epochs and uploads left.

    Raises:
        ProblemsFound: the folder is none of these, or MLflow cannot be reached.
    """
    study = find_study(root.resolve())
    warn_of_changed_runs(root.resolve(), "MLflow gets what was computed before")
    if study is None:
        left = sync_run(root, tracking_uri)
    elif isinstance(study, SweepFolder):
        left = sync_study(study, Sweep, log_sweep, tracking_uri)
    else:
        left = sync_study(study, Benchmark, log_benchmark, tracking_uri)
    record = MlflowRecord.read(RunFolder(root.resolve()).manifest)
    console.print(f"MLflow:  {record.tracking_uri}, experiment {record.experiment}", soft_wrap=True)
    return left
