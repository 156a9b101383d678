"""The benchmark for people: its tables, sentences on the ranking, Markdown, and a page that needs no network."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from uncseg.estimators.registry import AGAINST_DECISION, ORACLE
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
        "on it. Mean over cases of the mean over seeds [95 % interval, seeds and patients resampled]. Correlation and "
        f"RMSD are with the failure of {task.main_in_words}. For RMSD, Brier score, ECE, QU-BraTS, ACE and AURC every "
        "map was multiplied by a factor that was fitted, per method and fold, on the cases of the other folds. AUROC "
        "and AUPRC detect wrong voxels in the union mask, in the brain and within 2 voxels of the predicted border; "
        f"{AGAINST_DECISION}: |p − decision|, with the decision of the segmentation that is judged. AURC ranks "
        "cases by their mean uncertainty. Costs are multiples of plain nnU-Net's. * floor: needs no training of a "
        "network for it and is to be beaten. A constant map has correlation 0. "
        f"{UNKNOWN}: unknown; AURC needs 10 patients."
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


def ranking_table(ranked: pd.DataFrame, figure: str, segmentation: str = "shared") -> PageTable:
    """Return the ranking of methods, with its uncertainty.

    Args:
        ranked: as :func:`~uncseg.studies.benchmark.ranking.ranking` returns it.
        figure: by which the methods were ranked.
        segmentation: on which.
    """
    what = figures_by_key()[figure].label
    rows = []
    for row in ranked.to_dict("records"):
        known = not math.isnan(row["mean"])
        rank = UNKNOWN if pd.isna(row["rank"]) else str(row["rank"])
        ranks = UNKNOWN if pd.isna(row["rank_low"]) else f"{row['rank_low']} to {row['rank_high']}"
        lead = "is it" if row["method"] == row["best_floor"] else _lead(row)
        mean = _interval({"x": row["mean"], "x_low": row["ci_low"], "x_high": row["ci_high"]}, "x")
        cells = [mean if known or row["compared"] else "not compared", rank, ranks, lead]
        floor = row["best_floor"] if isinstance(row["best_floor"], str) else UNKNOWN
        rows.append(Row([_name(row), *cells, _display(floor)], _kind(row)))
    header = ["method", what, "rank", "95 % of ranks", "better than the best floor by", "the best floor"]
    whose = "its own training's" if segmentation == "own" else "the training's whose segmentation is shared"
    note = (
        "Mean over cases of the mean over seeds, with 95 % intervals from 2000 resamples of seeds and patients, which "
        "are the same for all methods; ± is the sd of a lead over seeds. * floor: needs no training of a network for "
        f"it and is to be beaten. The best floor is {whose}."
    )
    if ORACLE in set(ranked["method"]):
        note += " The oracle, the probability of failure itself, does not exist for real cases and is not ranked."
    kept = f"ranking_{figure}" if segmentation == "shared" else f"ranking_{segmentation}_{figure}"
    return PageTable(kept, f"Ranking by {what}, {segmentation} segmentation", header, rows, note)


def leads_table(leads: Mapping[str, pd.DataFrame], proposed: str, costs: pd.DataFrame) -> PageTable:
    """Return by how much one method is better than every other one on the shared segmentation.

    Args:
        leads: by figure, as :func:`~uncseg.studies.benchmark.ranking.leads_over_all` returns them.
        proposed: the method that is proposed.
        costs: method and ``inference_cost``.
    """
    figures, inference = figures_by_key(), costs.set_index("method")["inference_cost"]
    by_method = {key: table.set_index("method") for key, table in leads.items()}
    names = list(dict.fromkeys(name for table in leads.values() for name in table["method"]))
    rows = []
    for name in names:
        cells = [_lead(table.loc[name]) if name in table.index else UNKNOWN for table in by_method.values()]
        rows.append(Row([_display(name), *cells, fixed(inference.get(name, math.nan), 2)]))
    header = ["method", *(figures[key].label for key in leads), "inference cost"]
    note = (
        f"By how much {_display(proposed)} is better than the method of the row (positive: better), the same cases "
        "and seeds, with 95 % intervals from 2000 resamples of seeds and patients; ± is the sd over seeds. "
        f"Costs are multiples of plain nnU-Net's; that of {_display(proposed)} is "
        f"{fixed(inference.get(proposed, math.nan), 2)}."
    )
    return PageTable("leads", f"{_display(proposed)} against every other map", header, rows, note)


def _lead(row: Mapping[Any, Any]) -> str:
    seeds = row["lead_seed_sd"]
    return _interval(row, "lead", signed=True) + ("" if math.isnan(seeds) else f" ± {seeds:.3f}")


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
    wide: pd.DataFrame,
    task: Task,
    rankings: Mapping[str, pd.DataFrame] | None = None,
    least_dice: float = LEAST_DICE,
    further: Sequence[PageTable] = (),
) -> str:
    """Return the benchmark for the documentation: the table, and a ranking by each figure with its sentences.

    Args:
        wide, task, least_dice: as :func:`benchmark_table` takes them.
        rankings: by figure, on the shared segmentation.
        further: tables behind them.
    """
    parts = [benchmark_table(wide, task, least_dice).to_markdown()]
    parts += [f"{line}\n" for line in not_compared(wide, task, least_dice)]
    for figure, ranked in (rankings or {}).items():
        parts.append(ranking_table(ranked, figure).to_markdown())
        parts += [f"{line}\n" for line in verdicts(ranked, figure)]
    parts += [table.to_markdown() for table in further]
    return "\n".join(parts)


def write_benchmark_page(
    path: Path,
    title: str,
    wide: pd.DataFrame,
    task: Task,
    rankings: Mapping[str, pd.DataFrame],
    least_dice: float,
    further: Sequence[PageTable] = (),
    **about: Any,
) -> None:
    """Write the page.

    Args:
        path: file of the page.
        title: heading of the page.
        wide, task, rankings, least_dice, further: as :func:`to_markdown` takes them.
        about: figures, commands, configuration and environment of the page's section.
    """
    tables = [benchmark_table(wide, task, least_dice)]
    tables += [*(ranking_table(ranked, figure) for figure, ranked in rankings.items()), *further]
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
