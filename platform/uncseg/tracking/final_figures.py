"""A run's results as MLflow shows them: the final figures of the run and of each fold, and three lines of description.

They are read from the run's tables and its experiment file, so that MLflow can be filled again from a folder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd

from uncseg.config.training_sections import PROTOCOLS
from uncseg.evaluation.failure_table import JUDGED
from uncseg.evaluation.figures import best_floor, dice_columns, figures_by_key, shown_in
from uncseg.evaluation.tables import WITH
from uncseg.layout import RunFolder
from uncseg.metric_keys import case_key, final_key
from uncseg.page_table import mean_sd, with_interval
from uncseg.table_files import read_table
from uncseg.tasks.task import Task
from uncseg.tracking.mlflow_internals import UI_MODE
from uncseg.tracking.run_settings import read_task
from uncseg.tracking.shown import between_folds_name


@dataclass(frozen=True)
class FinalFigures:
    """Final figures by metric name (``final/…``); finite ones only."""

    run: Mapping[str, float] = field(default_factory=dict)
    """Mean over folds of each fold's mean over cases, and ``…_std``, the sample standard deviation over folds."""
    folds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Mean over each fold's cases."""


def final_figures(run: RunFolder) -> FinalFigures:
    """Return the final figures of a run; none before its evaluation."""
    per_case, scores, summary = (read_table(run.tables, name) for name in ("per_case", "scores", "scores_summary"))
    if per_case is None:
        return FinalFigures()
    task = read_task(run)
    names = _names(task)
    columns = {f"final/{name}": per_case[name] for name in dice_columns(task)}
    for figure in figures_by_key().values():
        for protocol, estimator in product(PROTOCOLS, figure.estimators):
            column = case_key(estimator, protocol, figure.kind)
            if column in per_case:
                columns[final_key(protocol, figure.kind, estimator)] = per_case[column]
    by_fold = pd.DataFrame(columns).groupby(per_case["fold"]).mean()
    if scores is not None:
        by_fold = by_fold.join(_region_means(scores, names))
    means: dict[str, float] = {}
    for name, values in by_fold.items():
        means |= {str(name): float(values.mean()), str(between_folds_name(str(name))): float(values.std(ddof=1))}
    if summary is not None:
        # a figure across cases has no value per case, and so none per fold
        known = summary.set_index(["figure", "region"])["mean"]
        means |= {name: float(known[pair]) for pair, name in names.items() if pair in known and name not in means}
    folds = {int(str(fold)): _finite(row) for fold, row in by_fold.to_dict("index").items()}
    return FinalFigures(_finite(means), folds)


def _region_means(scores: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return the means per fold, one column per figure and region."""
    columns = dict.fromkeys(key for key, _ in names if key in scores)
    means = scores.groupby(["fold", "region"])[list(columns)].mean().unstack()
    return pd.DataFrame({name: means[pair] for pair, name in names.items() if pair in means.columns})


def _names(task: Task) -> dict[tuple[str, str], str]:
    """Return the metric by (figure, region) of all figures per region that MLflow shows."""
    shown = [(figure.key, region) for figure in figures_by_key().values() for region in figure.logged_regions(task)]
    return {(key, region): f"final/{key}_{task.region_keys[region]}" for key, region in shown}


def _finite(figures: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in figures.items() if math.isfinite(value)}


def describe(run: RunFolder, page: str) -> str | None:
    """Return the result in at most three lines of Markdown, with links into the run's page; None before it exists."""
    first, third = read_table(run.tables, "table1"), read_table(run.tables, "table3")
    if first is None:
        return None
    uncertainty = [] if third is None else [_uncertainty_line(third)]
    # hard line breaks: the UI folds a description of more than three lines
    return "  \n".join([_dice_line(first, read_task(run)), *uncertainty, _links(run, page)]) + "\n"


def _dice_line(table: pd.DataFrame, task: Task) -> str:
    model = WITH if (table["model"] == WITH).any() else str(table["model"].iloc[0])
    rows = {str(row["fold"]): row for row in table[table["model"] == model].to_dict("records")}
    folds, mean, sd = sum(fold.isdigit() for fold in rows), rows["mean"], rows["sd"]
    figures = ", ".join(
        f"{name.removeprefix('Dice ')} {mean_sd(mean[column], sd[column], 3)}"
        for column, name in dice_columns(task).items()
    )
    return f"**Dice** {model}: {figures} ({folds} folds, {mean['cases']} cases, out of fold)"


def _uncertainty_line(table: pd.DataFrame) -> str:
    """Compare each trained map with the best floor by the first figure of Table 3."""
    key, figure = next(iter(shown_in("table3").items()))
    rows = {row["estimator"]: row for row in table.to_dict("records") if not math.isnan(row[key])}
    floor = best_floor({name: row[key] for name, row in rows.items()}, key)
    parts = (
        f"{'best floor, ' if name == floor else ''}{name} "
        f"{with_interval(rows[name][key], rows[name][f'{key}_low'], rows[name][f'{key}_high'], 3)}"
        for name in (*(name for name in JUDGED if name in rows), floor)
        if name is not None
    )
    return f"**{figure.label}**, union mask: {'; '.join(parts) or 'none valid'}"


def _links(run: RunFolder, page: str) -> str:
    tables = {
        "Table 1": "table1",
        "Table 2": "table2",
        "Table 3": "table3",
        "Table 4": "table4",
        "every case": "per_case",
    }
    files = {text: run.tables / f"{name}.csv" for text, name in tables.items()} | {"report": run.root / "report.html"}
    paths = {name: file.relative_to(run.root).as_posix() for name, file in files.items() if file.is_file()}
    return " · ".join(f"[{name}]({page}/artifacts/{path}{UI_MODE})" for name, path in paths.items())
