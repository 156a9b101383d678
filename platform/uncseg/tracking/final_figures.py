"""A run's results as MLflow shows them: the final figures of the run and of each fold, and three lines of description.

Read from the run's tables alone, so that MLflow can be filled again from a folder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from uncseg.config.sections import PROTOCOLS
from uncseg.estimators.registry import BASELINES, FLOORS, HEAD
from uncseg.evaluation.tables import DICE_COLUMNS, WITH
from uncseg.layout import RunFolder
from uncseg.page_table import mean_sd
from uncseg.table_files import read_table
from uncseg.tracking.mlflow_internals import UI_MODE
from uncseg.tracking.shown import between_folds_name

_BY_REGION = ("hd95_mm", "lesionwise_dice")
_OF_WT = ("qu_score", "qu_score_always_certain", "auroc_band", "ece")
_OF_ALL_CASES = ("aurc", "e_aurc", "spearman_uncertainty_dice")
_COMPARED = {
    "corr_failure": (HEAD, *BASELINES, *(floor for floor in FLOORS if floor != "constant")),
    "rmsd_failure": (HEAD, *BASELINES, "constant"),
}


@dataclass(frozen=True)
class FinalFigures:
    """``final/…`` by name; finite ones only."""

    run: Mapping[str, float] = field(default_factory=dict)
    """Mean over folds of their means over cases, and ``…_std``, the sample standard deviation over folds."""
    folds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Mean over each fold's cases."""


def final_figures(run: RunFolder) -> FinalFigures:
    """The final figures of an evaluated run; none before its evaluation."""
    per_case, scores, summary = (read_table(run.tables, name) for name in ("per_case", "scores", "scores_summary"))
    if per_case is None:
        return FinalFigures()
    columns = {f"final/{name}": per_case[name] for name in DICE_COLUMNS}
    for figure, estimators in _COMPARED.items():
        for protocol in PROTOCOLS:
            for estimator in estimators:
                if f"{estimator}/{protocol}/{figure}" in per_case:
                    name = f"final/{protocol}/{figure}/{estimator}"
                    columns[name] = per_case[f"{estimator}/{protocol}/{figure}"]
    by_fold = pd.DataFrame(columns).groupby(per_case["fold"]).mean()
    if scores is not None:
        by_fold = by_fold.join(_of_regions(scores))
    figures: dict[str, float] = {}
    for column, values in by_fold.items():
        figures |= {str(column): float(values.mean()), str(between_folds_name(str(column))): float(values.std(ddof=1))}
    if summary is not None:
        wt = summary[summary["region"] == "WT"].set_index("figure")["mean"]
        figures |= {f"final/{name}_wt": float(wt[name]) for name in _OF_ALL_CASES if name in wt}
    folds = {int(str(fold)): _finite(row) for fold, row in by_fold.to_dict("index").items()}
    return FinalFigures(_finite(figures), folds)


def _of_regions(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of each fold's regions, a column a figure and region."""
    wanted = [(figure, region) for figure in _BY_REGION for region in ("WT", "TC", "ET")]
    wanted += [(figure, "WT") for figure in _OF_WT]
    means = scores.groupby(["fold", "region"])[[f for f in (*_BY_REGION, *_OF_WT) if f in scores]].mean().unstack()
    known = [pair for pair in wanted if pair in means.columns]
    return pd.DataFrame({f"final/{figure}_{region.lower()}": means[figure, region] for figure, region in known})


def _finite(figures: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in figures.items() if math.isfinite(value)}


def describe(run: RunFolder, page: str) -> str | None:
    """The result in three lines of Markdown; None before the run's evaluation.

    Args:
        run: its folder.
        page: its own in MLflow's UI; the links lead to its artifacts.
    """
    first, second = read_table(run.tables, "table1"), read_table(run.tables, "table2")
    if first is None or second is None:
        return None
    # a hard break each: the UI folds what is longer than three lines
    return "  \n".join([_dice_line(first), _uncertainty_line(second), _links(run, page)]) + "\n"


def _dice_line(table: pd.DataFrame) -> str:
    model = WITH if (table["model"] == WITH).any() else str(table["model"].iloc[0])
    rows = {str(row["fold"]): row for row in table[table["model"] == model].to_dict("records")}
    folds, mean, sd = sum(fold.isdigit() for fold in rows), rows["mean"], rows["sd"]
    figures = ", ".join(
        f"{name.removeprefix('Dice ')} {mean_sd(mean[column], sd[column], 3)}" for column, name in DICE_COLUMNS.items()
    )
    return f"**Dice** {model}: {figures} ({folds} folds, {mean['cases']} cases, out of fold)"


def _uncertainty_line(table: pd.DataFrame) -> str:
    """The head beside the best floor, where false positives count too."""
    rows = {row["estimator"]: row for row in table[table["protocol"] == "union"].to_dict("records")}
    known = {name: row for name, row in rows.items() if not math.isnan(row["corr_failure"])}
    floors = [name for name, row in known.items() if row["floor"]]
    parts = [HEAD] if HEAD in known else ["variance_stable"] if "variance_stable" in known else []
    parts += [max(floors, key=lambda name: known[name]["corr_failure"])] if floors else []
    figures = (
        f"{'best floor, ' if known[name]['floor'] else ''}{name} "
        f"{mean_sd(known[name]['corr_failure'], known[name]['corr_failure_std'], 3)}"
        for name in parts
    )
    return f"**Correlation with the failure**, union mask: {'; '.join(figures) or 'none valid'}"


def _links(run: RunFolder, page: str) -> str:
    files = {
        "Table 1": run.tables / "table1.csv",
        "Table 2": run.tables / "table2.csv",
        "every case": run.tables / "per_case.csv",
        "report": run.root / "report.html",
    }
    there = {name: file.relative_to(run.root).as_posix() for name, file in files.items() if file.is_file()}
    return " · ".join(f"[{name}]({page}/artifacts/{path}{UI_MODE})" for name, path in there.items())
