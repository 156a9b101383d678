"""The end of a benchmark: tables, figure, page, and all of it in MLflow."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import yaml

from uncseg.config.experiment import Experiment
from uncseg.console import console
from uncseg.estimators.registry import BENCHMARK_FLOORS
from uncseg.evaluation.figures import KINDS, shown_in
from uncseg.evaluation.tables import table2
from uncseg.files import read_json, write_text
from uncseg.layout import RunFolder
from uncseg.provenance import describe_versions
from uncseg.report.page import Picture
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.benchmark.benchmark_mlflow import log_benchmark
from uncseg.studies.benchmark.benchmark_page import (
    benchmark_table,
    not_compared,
    to_markdown,
    verdicts,
    write_benchmark_page,
)
from uncseg.studies.benchmark.benchmark_plot import draw_benchmark
from uncseg.studies.benchmark.benchmark_table import benchmark_rows, benchmark_summary, wide_table
from uncseg.studies.benchmark.methods import Method
from uncseg.studies.benchmark.ranking import ranking
from uncseg.studies.benchmark.score_maps import ScoredFold, read_counts, read_rows
from uncseg.studies.parent_run import close_parent
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.table_files import write_table
from uncseg.tracking.spool import epoch_table

CAPTION = (
    "Quality on the shared segmentation against what predicting and training cost; plain nnU-Net is 1. Of an estimator "
    "with several maps the best one is shown."
)


def close_benchmark(
    benchmark: Benchmark, base: Experiment, folder: BenchmarkFolder, finished: Sequence[ScoredFold]
) -> None:
    """Write and print the tables, draw the figure, write the page, fill MLflow.

    Args:
        finished: trainings and folds whose cases are scored.
    """
    methods = {method.name: method for one in finished for method in one.methods}
    floors, least = [name for name, method in methods.items() if method.floor], benchmark.least_dice_wt
    rows = benchmark_rows(pd.DataFrame(read_rows(finished)), read_counts(finished))
    summary = benchmark_summary(rows, least)
    costs = pd.DataFrame([_cost(method, folder) for method in methods.values()])
    wide = wide_table(summary, costs, floors)
    # real cases have no oracle
    known = [figure for figure in shown_in("ranking") if rows[figure].notna().any()]
    ranked = {figure: ranking(rows, figure, floors=floors, least_dice_wt=least) for figure in known}
    memory = against_memory(finished)
    tables = {"rows": rows, "summary": summary, "costs": costs, "benchmark": wide, "memory": memory}
    tables |= {f"ranking_{figure}": table for figure, table in ranked.items()}
    for name, frame in tables.items():
        write_table(frame, folder.tables, name)
    write_text(folder.tables / "benchmark.md", to_markdown(wide, ranked, least))
    figure = folder.figures / "quality_against_cost.png"
    families = wide["method"].map({name: f"{one.training}/{one.estimator or name}" for name, one in methods.items()})
    drawn = [Picture(figure, CAPTION)] if draw_benchmark(figure, wide.assign(family=families)) else []
    _write_page(folder, benchmark, wide, ranked, drawn)
    console.print(benchmark_table(wide, least).to_rich())
    for line in not_compared(wide, least):
        console.print(line)
    for name, table in ranked.items():
        for line in verdicts(table, name):
            console.print(line)
    console.print(f"tables:  {folder.tables}\nfigures: {folder.figures}\nreport:  {folder.page}", soft_wrap=True)
    close_parent(folder, benchmark, base, log_benchmark, sync_runs=True)


def _write_page(
    folder: BenchmarkFolder,
    benchmark: Benchmark,
    wide: pd.DataFrame,
    ranked: dict[str, pd.DataFrame],
    drawn: list[Picture],
) -> None:
    versions = "\n".join(f"{name} {version}" for name, version in describe_versions().items())
    write_benchmark_page(
        folder.page,
        benchmark.name,
        wide,
        ranked,
        drawn,
        commands="uncseg benchmark FILE",
        configuration=yaml.safe_dump(read_json(folder.content), sort_keys=False),
        environment=f"{versions}\ncosts measured on: {read_json(folder.costs)['device']}",
        least_dice_wt=benchmark.least_dice_wt,
    )


def _cost(method: Method, folder: BenchmarkFolder) -> dict[str, Any]:
    """Passes, networks, and what training and predicting take, as multiples of plain nnU-Net's."""
    measured = read_json(folder.costs)
    training = measured["training"]["ratio"][method.training]
    # members train alike; an error network comes on top of the segmentation that it looks at
    if method.judged is None:
        trained = training * method.models
    else:
        trained = training + measured["training"]["ratio"][method.judged]
    prediction = f"{method.training}/{method.estimator or ''}"
    return {
        "method": method.name,
        "passes": method.passes,
        "models": method.models,
        "training_cost": trained,
        "inference_cost": measured["inference"]["ratio"][prediction],
        "inference_seconds": measured["inference"]["seconds"][prediction],
    }


def against_memory(finished: Sequence[ScoredFold]) -> pd.DataFrame:
    """Every map of one pass against its training's own error memory, over the last epochs: the paper's figures.

    Returns:
        Columns training, cancer_mask, coordinates, protocol, estimator, floor, seeds, and per kind of comparison
        ``KIND_ema`` and ``KIND_ema_sd``: means over folds, then mean and sample sd over seeds.
    """
    parts = []
    for root, one in {one.task.run.root: one for one in finished}.items():
        experiment = one.task.experiment
        of_run = table2(pd.DataFrame(), epoch_table(RunFolder(root).spool), experiment.evaluation.last_epochs)
        parts.append(
            of_run.assign(
                training=one.training.name,
                floor=of_run["estimator"].isin(BENCHMARK_FLOORS),
                cancer_mask=experiment.loss.cancer_mask,
                coordinates=experiment.memory.coordinates,
            )
        )
    keys = ["training", "cancer_mask", "coordinates", "protocol", "estimator", "floor"]
    grouped = pd.concat(parts).groupby(keys, sort=False)
    return grouped.agg(
        **{
            f"{kind}_ema{end}": (f"{kind}_ema_last", how)
            for kind in KINDS
            for end, how in (("", "mean"), ("_sd", "std"))
        },
        seeds=("rmsd_ema_last", "size"),
    ).reset_index()
