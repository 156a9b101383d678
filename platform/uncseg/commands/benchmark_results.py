"""The end of a benchmark: tables, figure, page, and all of it in MLflow."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from uncseg.benchmark.file import Benchmark
from uncseg.benchmark.methods import Method
from uncseg.cluster.benchmark import Scored, read_scores
from uncseg.commands.benchmark_run import log_benchmark, open_benchmark_run, sync_trainings
from uncseg.config import Experiment
from uncseg.console import console
from uncseg.errors import ProblemsFound
from uncseg.evaluation.benchmark_table import benchmark_rows, benchmark_summary, ranking, wide_table
from uncseg.evaluation.tables import table2, write_table
from uncseg.files import read_json, write_text
from uncseg.layout import BenchmarkFolder, RunFolder
from uncseg.report.benchmark_figure import draw_quality_cost
from uncseg.report.benchmark_page import show_benchmark, to_markdown, write_benchmark_page
from uncseg.tracking.spool import epoch_table


def close_benchmark(
    benchmark: Benchmark, base: Experiment, folder: BenchmarkFolder, finished: Sequence[Scored]
) -> None:
    """Write and print the tables, draw the figure, write the page, fill MLflow.

    Args:
        finished: trainings and folds whose cases are scored.
    """
    methods = {method.name: method for one in finished for method in one.methods}
    cases, counts = read_scores(finished)
    rows = benchmark_rows(pd.DataFrame(cases), counts)
    summary = benchmark_summary(rows, benchmark.least_dice_wt)
    floors = [name for name, method in methods.items() if method.floor]
    ranks = ranking(rows, floors=floors)
    costs = pd.DataFrame([_cost(method, folder) for method in methods.values()])
    table = wide_table(summary, costs)
    memory = against_memory(finished)
    tables = {"rows": rows, "summary": summary, "ranking": ranks, "costs": costs, "benchmark": table, "memory": memory}
    for name, frame in tables.items():
        write_table(frame, folder.tables, name)
    write_text(folder.tables / "benchmark.md", to_markdown(table, ranks, memory))
    draw_quality_cost(summary, costs, folder.figures)
    write_benchmark_page(folder.page, benchmark.name, table, ranks, memory, folder.figures)
    show_benchmark(table, ranks)
    console.print(f"tables:  {folder.tables}\nfigures: {folder.figures}\nreport:  {folder.page}", soft_wrap=True)
    _fill_mlflow(benchmark, base, folder, finished, summary)


def _cost(method: Method, folder: BenchmarkFolder) -> dict[str, Any]:
    """Passes, networks, and what training and predicting take, as multiples of the shared training's."""
    measured = read_json(folder.costs)
    training = measured["training"]["ratio"][method.training]
    # members train alike; an error network comes on top of the segmentation that it looks at
    trained = training * method.models if method.estimator == "ensemble" else training + method.models - 1
    prediction = f"{method.training}/{method.estimator or ''}"
    return {
        "method": method.name,
        "passes": method.passes,
        "models": method.models,
        "training_cost": trained,
        "inference_cost": measured["inference"]["ratio"][prediction],
        "inference_seconds": measured["inference"]["seconds"][prediction],
    }


def against_memory(finished: Sequence[Scored]) -> pd.DataFrame:
    """Every map of one pass against its training's own error memory, over the last epochs: the paper's figures.

    Returns:
        Columns training, cancer_mask, coordinates, protocol, estimator, floor, corr_ema, corr_ema_sd, rmsd_ema,
        rmsd_ema_sd, seeds: means over folds, then mean and sample sd over seeds.
    """
    parts = []
    for root, one in {one.task.run.root: one for one in finished}.items():
        experiment = one.task.experiment
        of_run = table2(pd.DataFrame(), epoch_table(RunFolder(root).spool), experiment.evaluation.last_epochs)
        parts.append(
            of_run.assign(
                training=one.training.name,
                cancer_mask=experiment.loss.cancer_mask,
                coordinates=experiment.memory.coordinates,
            )
        )
    keys = ["training", "cancer_mask", "coordinates", "protocol", "estimator", "floor"]
    grouped = pd.concat(parts).groupby(keys, sort=False)
    return grouped.agg(
        corr_ema=("corr_ema_last", "mean"),
        corr_ema_sd=("corr_ema_last", "std"),
        rmsd_ema=("rmsd_ema_last", "mean"),
        rmsd_ema_sd=("rmsd_ema_last", "std"),
        seeds=("corr_ema_last", "size"),
    ).reset_index()


def _fill_mlflow(
    benchmark: Benchmark, base: Experiment, folder: BenchmarkFolder, finished: Sequence[Scored], summary: pd.DataFrame
) -> None:
    try:
        parent = open_benchmark_run(folder, benchmark, base)
        left = sync_trainings(folder, base, parent, list(dict.fromkeys(one.training.run_name for one in finished)))
        log_benchmark(folder, base, summary)
    except (ProblemsFound, MlflowException) as error:
        console.print(f"MLflow did not take it ({error}); when it is back: uncseg sync {folder.root}", soft_wrap=True)
        return
    if left:
        console.print(f"{left} records did not reach MLflow; when it is back: uncseg sync {folder.root}")
    console.print(f"MLflow:  uncseg ui {folder.root}", soft_wrap=True)
