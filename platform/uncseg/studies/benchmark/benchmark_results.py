"""The end of a benchmark: its tables, figures and page, and the log in MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from uncseg.config.case_lists import short_lists
from uncseg.config.experiment import Experiment
from uncseg.config.task_files import named_task
from uncseg.config.training_sections import Memory
from uncseg.console import console
from uncseg.estimators.registry import CROSS_FITTED, FLOORS
from uncseg.evaluation.figures import KINDS, shown_in
from uncseg.evaluation.tables import table2
from uncseg.files import read_json, write_text
from uncseg.layout import RunFolder
from uncseg.provenance import describe_versions
from uncseg.report.page import Picture
from uncseg.report.skipped import skipped_lines
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.benchmark.benchmark_mlflow import log_benchmark
from uncseg.studies.benchmark.benchmark_page import (
    benchmark_table,
    leads_table,
    not_compared,
    ranking_table,
    to_markdown,
    verdicts,
    write_benchmark_page,
)
from uncseg.studies.benchmark.benchmark_plot import draw_benchmark
from uncseg.studies.benchmark.benchmark_table import benchmark_rows, benchmark_summary, wide_table
from uncseg.studies.benchmark.cost import stage_of
from uncseg.studies.benchmark.methods import Method
from uncseg.studies.benchmark.ranking import OWN, SHARED, leads_over_all, ranking
from uncseg.studies.benchmark.ranking_plot import draw_rankings
from uncseg.studies.benchmark.score_maps import ScoredFold, read_counts, read_rows
from uncseg.studies.parent_run import close_parent
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.table_files import table_of, write_table
from uncseg.tracking.spool import epoch_table

ORACLE_FIGURE = "corr_oracle_union"
"""A figure of phantoms alone; on their own segmentations methods are ranked by what real cases have too."""
MEAN_SD = {"": "mean", "_sd": "std"}
CAPTION = (
    "Quality on the shared segmentation against the cost of prediction and training; plain nnU-Net is 1. Only the best "
    "map of each estimator is shown."
)

RANKING_CAPTION = (
    "Maps that are compared, on the shared segmentation, in the order of the first figure, with 95 % intervals over "
    "seeds and patients. Hollow, *: a floor. Orange: the proposed map, if there is one. Black: the oracle."
)


def close_benchmark(
    benchmark: Benchmark, base: Experiment, folder: BenchmarkFolder, finished: Sequence[ScoredFold]
) -> None:
    """Write and print the tables, draw the figure, write the page, fill MLflow.

    Args:
        benchmark, base: as loaded.
        folder: of the benchmark.
        finished: trainings and folds whose cases are scored.
    """
    task = base.dataset.task
    methods = {method.name: method for part in finished for method in part.methods}
    members = {part.training.name: part.request.experiment.training.members for part in finished}
    floors, least = [name for name, method in methods.items() if method.floor], benchmark.least_dice
    rows = benchmark_rows(table_of(read_rows(finished)), read_counts(finished))
    summary = benchmark_summary(rows, task, least)
    measured = read_json(folder.costs)
    costs = pd.DataFrame([_cost(method, measured, members) for method in methods.values()])
    wide = wide_table(summary, costs, task, floors)
    # real cases have no oracle
    known = [figure for figure in shown_in("ranking") if rows[figure].notna().any()]
    of_shared = [name for name in floors if methods[name].training == benchmark.shared]
    ranked = {figure: ranking(rows, task, figure, SHARED, of_shared, least) for figure in known}
    deciding = {name: method.judged for name, method in methods.items() if method.judged is not None}
    real = [figure for figure in known if figure != ORACLE_FIGURE]
    own = {figure: ranking(rows, task, figure, OWN, floors, least, deciding) for figure in real}
    proposed = benchmark.proposed
    leads = {} if proposed is None else {f: leads_over_all(rows, task, f, proposed, least) for f in known}
    tables = {"rows": rows, "summary": summary, "costs": costs, "benchmark": wide, "memory": against_memory(finished)}
    tables |= {f"ranking_{figure}": table for figure, table in ranked.items()}
    tables |= {f"ranking_own_{figure}": table for figure, table in own.items()}
    tables |= {f"leads_{figure}": table for figure, table in leads.items()}
    for name, frame in tables.items():
        write_table(frame, folder.tables, name)
    further = [ranking_table(table, figure, OWN) for figure, table in own.items()]
    further += [] if proposed is None else [leads_table(leads, proposed, costs)]
    write_text(folder.tables / "benchmark.md", to_markdown(wide, task, ranked, least, further))
    families = {name: f"{method.training}/{method.estimator or name}" for name, method in methods.items()}
    pictures = _draw(folder, ranked, proposed, wide.assign(family=wide["method"].map(families)))
    settings = read_json(folder.content)
    settings["experiment"] = named_task(short_lists(settings["experiment"]))
    versions = "\n".join(f"{name} {version}" for name, version in describe_versions().items())
    write_benchmark_page(
        folder.page,
        benchmark.name,
        wide,
        task,
        ranked,
        least,
        further,
        figures=pictures,
        commands="uncseg benchmark FILE",
        configuration=yaml.safe_dump(settings, sort_keys=False),
        environment=f"{versions}\ncosts measured on: {measured['device']}",
    )
    console.print(benchmark_table(wide, task, least).to_rich())
    sentences = [line for name, table in ranked.items() for line in verdicts(table, name)]
    for line in [*not_compared(wide, task, least), *sentences, *_left_out(finished)]:
        console.print(line)
    console.print(f"tables:  {folder.tables}\nfigures: {folder.figures}\nreport:  {folder.page}", soft_wrap=True)
    close_parent(folder, benchmark, base, log_benchmark, sync_runs=True)


def _draw(
    folder: BenchmarkFolder, ranked: Mapping[str, pd.DataFrame], proposed: str | None, wide: pd.DataFrame
) -> list[Picture]:
    """Draw the rankings, and quality against cost; return what there was to draw."""
    ranking_file, cost_file = folder.figures / "ranking.png", folder.figures / "quality_against_cost.png"
    drawn = [
        (draw_rankings(ranking_file, ranked, proposed), Picture(ranking_file, RANKING_CAPTION)),
        (draw_benchmark(cost_file, wide), Picture(cost_file, CAPTION)),
    ]
    return [picture for is_drawn, picture in drawn if is_drawn]


def _left_out(finished: Sequence[ScoredFold]) -> list[str]:
    """Return what the trainings have left out, each named by its run."""
    runs = {part.request.run: part.request.experiment for part in finished}
    return [f"{run.root.name}: {line}" for run, trained in runs.items() for line in skipped_lines(run, trained)]


def _cost(method: Method, measured: Mapping[str, Any], members: Mapping[str, int]) -> dict[str, Any]:
    """Return passes, networks, and the cost of training and prediction as multiples of plain nnU-Net's.

    ``members`` are the networks of each training.
    """
    training, inference = measured["training"]["ratio"], measured["inference"]
    # the members of an ensemble train alike; an error network, or a stage, in addition to the network that it judges
    trained = training[method.training] * method.models
    if method.judged is not None:
        trained = training[method.training] + training[method.judged]
    if method.map == CROSS_FITTED:
        trained += training[stage_of(method.training)]
    if (other := method.learns_from) is not None:
        stage = 0 if method.learns == "members" else training[stage_of(other)]
        trained += training[other] * (members[other] if method.learns == "members" else 1) + stage
    return {
        "method": method.name,
        "passes": method.passes,
        "models": method.models,
        "training_cost": trained,
        "inference_cost": inference["ratio"][method.prediction],
        "inference_seconds": inference["seconds"][method.prediction],
    }


def against_memory(finished: Sequence[ScoredFold]) -> pd.DataFrame:
    """Compare every map of one pass with its training's own error memory over the last epochs, as the paper does.

    Returns:
        Columns training, cancer_mask, published (the differences of ``memory.published``), protocol, estimator, floor,
        seeds, and per kind of comparison ``KIND_ema`` and ``KIND_ema_sd``: means over folds, then mean and sample sd
        over seeds.
    """
    tables = []
    for root, part in {part.request.run.root: part for part in finished}.items():
        experiment = part.request.experiment
        last_epochs, task = experiment.evaluation.last_epochs, experiment.dataset.task
        table = table2(pd.DataFrame(), epoch_table(RunFolder(root).spool), last_epochs, task)
        tables.append(
            table.assign(
                training=part.training.name,
                floor=table["estimator"].isin(FLOORS),
                cancer_mask=experiment.loss.cancer_mask,
                published=", ".join(_differences(experiment.memory)),
            )
        )
    keys = ["training", "cancer_mask", "published", "protocol", "estimator", "floor"]
    columns = {f"{kind}_ema{end}": (f"{kind}_ema_last", how) for kind in KINDS for end, how in MEAN_SD.items()}
    grouped = pd.concat(tables).groupby(keys, sort=False)
    return grouped.agg(**columns, seeds=("rmsd_ema_last", "size")).reset_index()


def _differences(memory: Memory) -> list[str]:
    """Return what is kept as a public trainer keeps it."""
    return [] if memory.published is None else [name for name, differs in memory.published if differs]
