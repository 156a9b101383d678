"""A benchmark's own run in MLflow: the trainings' parent, with the table, the figures and the page."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from mlflow.entities import Metric

from uncseg.config.experiment import Experiment
from uncseg.evaluation.figures import shown_in
from uncseg.files import read_json
from uncseg.layout import BenchmarkFolder
from uncseg.provenance import describe_source
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.parent_run import open_parent_run
from uncseg.tracking.destination import open_store
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import now_ms
from uncseg.tracking.store import NOTE_TAG, storing
from uncseg.tracking.syncer import sync_run


def open_benchmark_run(folder: BenchmarkFolder, benchmark: Benchmark, base: Experiment) -> str:
    """Id of the benchmark's own run in MLflow, made where MLflow has none."""
    params = {
        "trainings": ", ".join(benchmark.trainings),
        "seeds": ", ".join(map(str, benchmark.seeds)),
        "shared": benchmark.shared,
        "least_dice_wt": str(benchmark.least_dice_wt),
        **{name: str(value) for name, value in benchmark.overrides.items()},
    }
    tags = {"uncseg.studies.benchmark": benchmark.name} | describe_source("uncseg benchmark", None)
    return open_parent_run(folder.manifest, base, benchmark.name, tags, params)


def sync_trainings(folder: BenchmarkFolder, base: Experiment, parent: str, runs: Sequence[str]) -> int:
    """Bring MLflow to what the trainings' folders say, below the benchmark's run; the number of records left."""
    return sum(sync_run(folder.trainings / run, base.tracking_uri, parent) for run in runs)


def log_benchmark(folder: BenchmarkFolder, base: Experiment, summary: pd.DataFrame) -> None:
    """Log each method's means on the shared segmentation, the tables, the figures and the page.

    Args:
        summary: of :func:`~uncseg.studies.benchmark.benchmark_table.benchmark_summary`.

    Raises:
        ProblemsFound, MlflowException: MLflow does not take it.
    """
    store = open_store(base.tracking_uri, base.tracking.experiment)
    record = MlflowRecord.read(folder.manifest)
    run_id = record.parent.run_id
    if record.parent.end_ms is None:
        record.parent.end_ms = now_ms()
        record.write(folder.manifest)
    logged = ["dice_wt", *shown_in("benchmark_mlflow")]
    shared = summary[(summary["segmentation"] == "shared") & summary["figure"].isin(logged)]
    rows = [
        Metric(f"{row['figure']}/{row['method'].replace('/', '.')}", float(row["mean"]), record.parent.end_ms, 0)
        for row in shared.to_dict("records")
        if math.isfinite(row["mean"])
    ]
    store.log_metrics(run_id, rows)
    page = f"{store.run_page(run_id)}/artifacts"
    note = (
        f"[table]({page}/tables/benchmark.csv) · [quality against cost]({page}/figures) · [page]({page}/report.html)\n"
    )
    store.set_tags(run_id, {NOTE_TAG: note})
    store.set_status(run_id, "FINISHED", record.parent.end_ms)
    with storing("the benchmark's tables and figures"):
        for artifacts in (folder.tables, folder.figures):
            for file in sorted(artifacts.glob("[!.]*")):
                store.log_file(run_id, file, artifacts.name)
        store.log_file(run_id, folder.page)


def sync_benchmark(root: Path, tracking_uri: str | None = None) -> int:
    """Bring MLflow to what a benchmark's folder says: its own run and its trainings.

    Args:
        root: the benchmark's folder.
        tracking_uri: where to; None: where it went before.

    Returns:
        Number of epochs and uploads that are left.

    Raises:
        ProblemsFound: MLflow cannot be reached.
    """
    folder = BenchmarkFolder(root.resolve())
    content = read_json(folder.content)
    benchmark = Benchmark.model_validate({"base": str(folder.content)} | content["benchmark"])
    base = Experiment.model_validate(content["experiment"])
    uri = tracking_uri or MlflowRecord.read(folder.manifest).tracking_uri or base.tracking_uri
    base = base.model_copy(update={"tracking": base.tracking.model_copy(update={"uri": uri})})
    parent = open_benchmark_run(folder, benchmark, base)
    runs = sorted(file.parent.name for file in folder.trainings.glob("*/experiment.yaml"))
    left = sync_trainings(folder, base, parent, runs)
    summary = folder.tables / "summary.parquet"
    if summary.is_file():
        log_benchmark(folder, base, pd.read_parquet(summary))
    return left
