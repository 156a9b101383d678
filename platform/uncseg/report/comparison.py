"""Runs side by side: what was set differently, and what came of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from uncseg.config.experiment import Experiment
from uncseg.config.fields import flatten, is_within
from uncseg.estimators.registry import HEAD
from uncseg.evaluation.figures import DICE_COLUMNS, best_floor, shown_by_kind
from uncseg.evaluation.page_tables import dice_cells
from uncseg.evaluation.summary import compare
from uncseg.page_table import PageTable, Row, mean_sd
from uncseg.report.score_tables import differences_table
from uncseg.report.style import NAMES

WHERE_IT_RUNS = ("name", "dataset.path", "resources", "tracking", "storage", "training.loader_processes")


@dataclass(frozen=True)
class Results:
    """What is known of a run; tables are None before its evaluation."""

    name: str
    experiment: Experiment
    manifest: Mapping[str, Any]
    table1: pd.DataFrame | None
    table2: pd.DataFrame | None
    scores: pd.DataFrame | None


@dataclass(frozen=True)
class Compared:
    """A table of numbers, and the same for the page."""

    frame: pd.DataFrame
    table: PageTable


def compare_results(runs: Sequence[Results]) -> tuple[list[Compared], list[str]]:
    """Tables of several runs beside each other, and sentences on the cases that not all of them have.

    Settings that differ; Table 1's means; Table 2's head and best floor by protocol; paired differences of every
    other run from the first, as :func:`uncseg.evaluation.summary.compare` gives them. What has not been evaluated
    is left out.
    """
    tables = [_settings(runs)]
    tables += [part for part in (_dice(runs), _uncertainty(runs)) if part.table.rows]
    notes = []
    first, *others = runs
    for other in others:
        notes += _different_cases(first, other)
        if first.scores is None or other.scores is None:
            continue
        table = compare(first.scores, other.scores)
        if len(table):
            tables.append(Compared(table, differences_table(table, first.name, other.name)))
    return tables, notes


def _settings(runs: Sequence[Results]) -> Compared:
    described = {run.name: flatten(run.experiment.model_dump(mode="json")) | _described(run.manifest) for run in runs}
    fields = dict.fromkeys(field for values in described.values() for field in values)
    kept = [field for field in fields if not is_within(field, WHERE_IT_RUNS)]
    differing = [field for field in kept if len({values.get(field, "") for values in described.values()}) > 1]
    rows = [Row([field, *(values.get(field, "") for values in described.values())]) for field in differing]
    frame = pd.DataFrame([row.cells for row in rows], columns=["setting", *described])
    note = "Where a run computes and keeps its files is left out. Digests of 12 characters."
    title = "Settings that differ" if rows else "Settings: none differs"
    return Compared(frame, PageTable("settings", title, ["setting", *described], rows, note, words=described))


def _described(manifest: Mapping[str, Any]) -> dict[str, str]:
    digests = {f"digest of {name}": str(text)[:12] for name, text in manifest.get("digests", {}).items()}
    versions = {f"version of {name}": str(text) for name, text in manifest.get("versions", {}).items()}
    return digests | versions


def _dice(runs: Sequence[Results]) -> Compared:
    records, rows = [], []
    for run in runs:
        if run.table1 is None:
            continue
        model = run.table1["model"].iloc[0]
        by_fold = {row["fold"]: row for row in run.table1[run.table1["model"] == model].to_dict("records")}
        mean, sd = by_fold["mean"], by_fold["sd"]
        folds = sum(str(fold).isdigit() for fold in by_fold)
        record = {"run": run.name, "model": model, "folds": folds, "cases": mean["cases"]}
        records.append(record | {c: mean[c] for c in DICE_COLUMNS} | {f"{c}_sd": sd[c] for c in DICE_COLUMNS})
        rows.append(Row([run.name, str(model), str(folds), str(mean["cases"]), *dice_cells(mean, sd)]))
    header = ["run", "model", "folds", "cases", *DICE_COLUMNS.values()]
    note = "Mean over a fold's cases, then over folds ± sample sd over folds."
    return Compared(
        pd.DataFrame(records), PageTable("dice", "Table 1 of each run: Dice out of fold", header, rows, note)
    )


def _uncertainty(runs: Sequence[Results]) -> Compared:
    records, rows = [], []
    figures = [figure for part in shown_by_kind("comparison").values() for figure in part]
    known = [run for run in runs if run.table2 is not None]
    for protocol in dict.fromkeys(p for run in known if run.table2 is not None for p in run.table2["protocol"]):
        rows.append(Row([f"{protocol} mask"], "part"))
        for run in known:
            assert run.table2 is not None
            part = run.table2[run.table2["protocol"] == protocol].set_index("estimator")
            cells = []
            for key in [figure.key for figure in figures]:
                for name in (HEAD, best_floor(part[key].to_dict(), key, constant=False)):
                    found = None if name is None or name not in part.index else part.loc[name]
                    mean, sd = (math.nan, math.nan) if found is None else (found[key], found[f"{key}_std"])
                    called = "" if name is None or name == HEAD else f" ({NAMES.get(name, name)})"
                    cells.append("none" if found is None else mean_sd(mean, sd, 3) + called)
                    record = {"protocol": protocol, "run": run.name, "figure": key, "estimator": name}
                    records.append(record | {"mean": mean, "sd": sd})
            rows.append(Row([run.name, *cells]))
    header = ["run", *(f"{figure.label}: {what}" for figure in figures for what in ("head", "best floor"))]
    title = "Table 2 of each run: the head and the best floor, by protocol"
    note = (
        "Mean ± sample sd over folds; error memory: of the last epochs. The best floor is each run's own; it needs no "
    )
    note += "training, and is to be beaten."
    return Compared(pd.DataFrame(records), PageTable("uncertainty", title, header, rows, note))


def _different_cases(first: Results, other: Results) -> list[str]:
    if first.scores is None or other.scores is None:
        missing = " and ".join(run.name for run in (first, other) if run.scores is None)
        return [f"{first.name} and {other.name} are not compared case by case: {missing} is not evaluated yet."]
    folds = [
        run.scores.drop_duplicates("case").set_index("case")["fold"] for run in (first, other) if run.scores is not None
    ]
    a, b = folds
    lines = [
        f"Only in {run.name} ({len(only)}), and left out of the paired differences: {', '.join(only)}."
        for run, only in ((first, sorted(set(a.index) - set(b.index))), (other, sorted(set(b.index) - set(a.index))))
        if only
    ]
    both = a.index.intersection(b.index)
    moved = sorted(both[(a[both] != b[both]).to_numpy()])
    if moved:
        lines.append(f"In another fold of {other.name} than of {first.name} ({len(moved)}): {', '.join(moved)}.")
    if not len(both):
        lines.append(f"{first.name} and {other.name} have no case in common: nothing can be paired.")
    return lines
