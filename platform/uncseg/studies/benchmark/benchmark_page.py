"""The benchmark for people: its tables, sentences on the ranking, Markdown, and a page that needs no network."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from uncseg.estimators.registry import ORACLE
from uncseg.evaluation.figures import figures_by_key, region_dices, shown_in
from uncseg.page_table import UNKNOWN, PageTable, Row, fixed, with_interval
from uncseg.report.page import PageSection, write_page
from uncseg.report.style import NAMES
from uncseg.studies.benchmark.benchmark_table import LEAST_DICE, SEGMENTATIONS, main_dice
from uncseg.tasks.task import Task


def benchmark_table(wide: pd.DataFrame, task: Task, least_dice: float = LEAST_DICE) -> PageTable:
    """Return every method on its own segmentation, then on the shared one; a terminal shows means alone.

    Args:
        wide: as :func:`~uncseg.studies.benchmark.benchmark_table.wide_table` returns it.
        task: what the regions are.
        least_dice: mean Dice of the main region below which a method is not compared.
    """
    figures, costs, dices, main = shown_in("benchmark"), shown_in("cost"), region_dices(task), task.main_region
    header = ["method", *dices.values(), *(figure.label for figure in (figures | costs).values())]
    header += [] if wide["compared"].all() else ["remark"]
    rows = []
    for segmentation in SEGMENTATIONS:
        rows.append(Row([f"{segmentation} segmentation"], "part"))
        for row in wide.to_dict("records"):
            own = segmentation == "own"
            cells = [*(_interval(row, name) if own else "" for name in dices)]
            cells += [_interval(row, f"{segmentation}_{key}") for key in figures]
            cells += [fixed(row[key], 2 if cost.unit else 0) if own else "" for key, cost in costs.items()]
            cells += [] if row["compared"] else [f"not compared: {main} Dice under {least_dice:g}"]
            rows.append(Row([_name(row), *cells], _kind(row)))
    note = (
        f"{_most(wide, 'cases')}, {_most(wide, 'seeds')}; each case predicted by the fold that was not trained "
        "on it. Mean over cases of the mean over seeds [95 % interval, patients resampled]. Correlation and RMSD are "
        f"with the failure of {task.main_in_words}. For RMSD, QU-BraTS, ACE and AURC every map was multiplied by a "
        "factor that was fitted, per method and fold, on the cases of the other folds. AUROC and AUPRC detect wrong "
        "voxels in the brain and within 2 voxels of the predicted border; AURC ranks cases by their mean uncertainty. "
        "Costs are multiples of plain nnU-Net's. * floor: needs no training and is to be beaten. The correlation of a "
        f"constant map is shown as 0. {UNKNOWN}: unknown; AURC needs 10 patients."
    )
    if wide["method"].str.endswith("/variance_stable").any():
        note += " variance_stable is collected while the fold trains: it does not exist for new cases."
    terminal = {"method": "", f"Dice {main}": f"Dice\n{main}"}
    terminal |= {figure.label: figure.short for figure in (figures | costs).values() if figure.short}
    return PageTable(
        "benchmark",
        "Benchmark. Every method on the same cases",
        header,
        rows,
        note,
        words=["remark"],
        terminal=terminal,
        terminal_intervals=False,
    )


def ranking_table(ranked: pd.DataFrame, figure: str) -> PageTable:
    """Return the ranking of methods on the shared segmentation, with its uncertainty.

    Args:
        ranked: as :func:`~uncseg.studies.benchmark.ranking.ranking` returns it.
        figure: by which the methods were ranked.
    """
    what = figures_by_key()[figure].label
    rows = []
    for row in ranked.to_dict("records"):
        known = not math.isnan(row["mean"])
        rank = UNKNOWN if pd.isna(row["rank"]) else str(row["rank"])
        ranks = UNKNOWN if pd.isna(row["rank_low"]) else f"{row['rank_low']} to {row['rank_high']}"
        lead = "is it" if row["floor"] and row["lead"] == 0 else _interval(row, "lead", signed=True)
        mean = _interval({"x": row["mean"], "x_low": row["ci_low"], "x_high": row["ci_high"]}, "x")
        cells = [mean if known or row["compared"] else "not compared", rank, ranks, lead]
        rows.append(Row([_name(row), *cells], _kind(row)))
    header = ["method", what, "rank", "95 % of ranks", "better than the best floor by"]
    note = (
        "Mean over cases of the mean over seeds, with 95 % intervals from 2000 resamples of patients, which are the "
        "same for all methods. * floor: needs no training and is to be beaten."
    )
    if ORACLE in set(ranked["method"]):
        note += " The oracle, the probability of failure itself, does not exist for real cases and is not ranked."
    return PageTable(f"ranking_{figure}", f"Ranking by {what}, shared segmentation", header, rows, note)


def verdicts(ranked: pd.DataFrame, figure: str) -> list[str]:
    """Say which methods beat the best floor; arguments as :func:`ranking_table` takes them."""
    what = f"{figures_by_key()[figure].label}, shared segmentation"
    floors = ranked[ranked["floor"] & ranked["rank"].notna()]
    others = ranked[~ranked["floor"] & ranked["rank"].notna()]
    if floors.empty or others.empty:
        return []
    best = floors.sort_values("rank").iloc[0]
    start = f"{what}: the best floor, {_display(best['method'])}, has {best['mean']:.3f}"
    if others["lead_low"].isna().all():
        ahead = int((others["lead"] > 0).sum())
        return [f"{start}; {ahead} of {len(others)} methods are above it, on too few patients to prove it."]
    above = others[others["lead_low"] > 0]
    below = others[others["lead_high"] < 0]
    names = ", ".join(_display(name) for name in above["method"])
    line = f"{start}. Better with an interval above it: {names or 'none'}"
    rest = len(others) - len(above) - len(below)
    return [f"{line} ({len(above)} of {len(others)}); worse: {len(below)}; not told apart: {rest}."]


def not_compared(wide: pd.DataFrame, task: Task, least_dice: float = LEAST_DICE) -> list[str]:
    """Say of each method that is not compared why it is not."""
    return [
        f"{_display(row['method'])} is not compared: its mean {task.main_region} Dice of {row[main_dice(task)]:.3f} is "
        f"under {least_dice:g}."
        for row in wide[~wide["compared"]].to_dict("records")
    ]


def to_markdown(
    wide: pd.DataFrame, task: Task, rankings: Mapping[str, pd.DataFrame] | None = None, least_dice: float = LEAST_DICE
) -> str:
    """Return the benchmark for the documentation: the table, and a ranking by each figure with its sentences.

    Args:
        wide, task, least_dice: as :func:`benchmark_table` takes them.
        rankings: by figure, on the shared segmentation.
    """
    parts = [benchmark_table(wide, task, least_dice).to_markdown()]
    parts += [f"{line}\n" for line in not_compared(wide, task, least_dice)]
    for figure, ranked in (rankings or {}).items():
        parts.append(ranking_table(ranked, figure).to_markdown())
        parts += [f"{line}\n" for line in verdicts(ranked, figure)]
    return "\n".join(parts)


def write_benchmark_page(
    path: Path,
    title: str,
    wide: pd.DataFrame,
    task: Task,
    rankings: Mapping[str, pd.DataFrame],
    least_dice: float,
    **about: Any,
) -> None:
    """Write the page.

    Args:
        path: file of the page.
        title: heading of the page.
        wide, task, rankings, least_dice: as :func:`to_markdown` takes them.
        about: figures, commands, configuration and environment of the page's section.
    """
    tables = [benchmark_table(wide, task, least_dice)]
    tables += [ranking_table(ranked, figure) for figure, ranked in rankings.items()]
    section = PageSection(
        label=title,
        subtitle=f"{len(wide)} methods, {_most(wide, 'cases')}, {_most(wide, 'seeds')}",
        missing=not_compared(wide, task, least_dice),
        verdicts=[line for figure, ranked in rankings.items() for line in verdicts(ranked, figure)],
        tables=tables,
        **about,
    )
    write_page(path, title, [section])


def _most(wide: pd.DataFrame, what: str) -> str:
    count = int(wide[what].max())
    return f"{count} {what if count != 1 else what.removesuffix('s')}"


def _display(method: str) -> str:
    return NAMES.get(method, method)


def _name(row: Mapping[Any, Any]) -> str:
    return f"{_display(row['method'])}{' *' if row['floor'] else ''}"


def _kind(row: Mapping[Any, Any]) -> str:
    return "floor" if row["floor"] else "quoted" if row["method"] == ORACLE else ""


def _interval(row: Mapping[Any, Any], name: str, signed: bool = False) -> str:
    """Return a mean with its interval, whose ends have 2 digits, or 3 where 2 would make them equal."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    end_digits = 2 if f"{low:.2f}" != f"{high:.2f}" else 3
    return with_interval(row[name], low, high, 3, signed, end_digits)
