"""What MLflow is told about a benchmark: each method's means on the shared segmentation, tables and page."""

import math

from uncseg.evaluation.figures import shown_in
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.load_study import read_study
from uncseg.studies.parent_run import ParentRun
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.table_files import read_table


def log_benchmark(parent: ParentRun, _benchmark: Benchmark) -> None:
    """Log the result of a benchmark, as its tables say.

    Raises:
        ProblemsFound, MlflowException: MLflow does not take it.
    """
    summary = read_table(parent.folder.tables, "summary")
    if summary is None:
        return
    _, base = read_study(parent.folder, Benchmark)
    logged = [f"dice_{base.dataset.task.main_key}", *shown_in("benchmark_mlflow")]
    shared = summary[(summary["segmentation"] == "shared") & summary["figure"].isin(logged)]
    metrics = {
        f"{row['figure']}/{row['method'].replace('/', '.')}": float(row["mean"])
        for row in shared.to_dict("records")
        if math.isfinite(row["mean"])
    }
    page = parent.artifacts
    figures = f"[ranking, and quality against cost]({page}/figures)"
    note = f"[table]({page}/tables/benchmark.csv) · {figures} · [page]({page}/report.html)\n"
    parent.log(metrics, note, [BenchmarkFolder(parent.folder.root).page])
