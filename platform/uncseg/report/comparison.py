"""Runs side by side: what was set differently, and what came of it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from uncseg.config.fields import flatten, is_within
from uncseg.estimators.registry import HEAD
from uncseg.evaluation.figures import best_floor, shown_by_kind
from uncseg.evaluation.summary import compare
from uncseg.files import short_name, write_text
from uncseg.page_table import PageTable, Row, mean_sd
from uncseg.report.compared_tasks import common_dices, comparable_scores, task_sentences
from uncseg.report.page import PageSection, Picture
from uncseg.report.run_figures import ReportedRun, page_outputs
from uncseg.report.score_tables import differences_table
from uncseg.report.style import NAMES
from uncseg.report.training_curves import draw_trainings
from uncseg.table_files import write_table
from uncseg.tracking.manifest import read_manifest

WHERE_IT_RUNS = ("name", "dataset.path", "resources", "tracking", "storage", "training.loader_processes")
"""Fields of an experiment that do not change what is computed."""


ComparedTable = tuple[pd.DataFrame, PageTable]
"""A table of several runs, as numbers and for people."""


def comparison_section(runs: Sequence[ReportedRun], joined: str) -> PageSection:
    """Return what compares the runs, and write its tables and its figure into the first run's folder.

    These are the settings that differ, Table 1's means, Table 2's head and best floor per protocol, and the paired
    differences of every other run from the first, as :func:`uncseg.evaluation.summary.compare` gives them. Parts that
    have not been evaluated are left out, as are figures that runs of different tasks do not share. ``joined`` are the
    runs' names, which differ, as part of a file's name.
    """
    first, *others = runs
    compared, notes = [_settings(runs), _dice(runs), _uncertainty(runs)], []
    for other in others:
        notes += task_sentences(first.name, first.task, other.name, other.task)
        a, b = first.table("scores"), other.table("scores")
        if a is None or b is None:
            missing = " and ".join(run.name for run, scores in ((first, a), (other, b)) if scores is None)
            notes.append(
                f"{first.name} and {other.name} are not compared case by case: {missing} is not evaluated yet."
            )
            continue
        notes += _different_cases(first.name, a, other.name, b)
        if len(differences := compare(comparable_scores(a, first.task, other.task), b)):
            compared.append((differences, differences_table(differences, first.name, other.name)))
    compared = [(frame, table) for frame, table in compared if table.rows or table.name == "settings"]
    named = {f"comparison_{joined}_{short_name(table.name.replace(' ', '_'))}": (f, table) for f, table in compared}
    drawing, outputs = f"figures/figure2_{joined}.png", page_outputs(first.folder)
    names = {f"tables/{name}.{ending}" for name in named for ending in ("csv", "parquet", "tex")} | {drawing}
    picture = Picture(
        first.folder.root / drawing,
        f"Figure 2 of {'both' if len(runs) == 2 else 'all'} runs: each run has a colour; thin lines are folds, thick "
        "lines their mean; the last epochs are shaded.",
    )
    with outputs.noting(among=sorted(names)):
        for name, (frame, table) in named.items():
            write_table(frame, first.folder.tables, name)
            if table.rows:
                write_text(first.folder.tables / f"{name}.tex", replace(table, name=name).to_latex())
        draw_trainings(picture.file, [run.training() for run in runs])
    return PageSection("Comparison", missing=notes, tables=[table for _, table in compared], figures=[picture])


def _settings(runs: Sequence[ReportedRun]) -> ComparedTable:
    described = {run.name: flatten(run.experiment.model_dump(mode="json")) | _described(run) for run in runs}
    fields = dict.fromkeys(field for values in described.values() for field in values)
    kept = [field for field in fields if not is_within(field, WHERE_IT_RUNS)]
    differing = [field for field in kept if len({values.get(field, "") for values in described.values()}) > 1]
    rows = [Row([field, *(values.get(field, "") for values in described.values())]) for field in differing]
    header = ["setting", *described]
    note = "Settings that only say where a run computes and keeps its files are left out. Digests have 12 characters."
    title = "Settings that differ" if rows else "Settings: none differs"
    frame = pd.DataFrame([row.cells for row in rows], columns=header)
    return frame, PageTable("settings", title, header, rows, note, words=header)


def _described(run: ReportedRun) -> dict[str, str]:
    manifest = read_manifest(run.folder.manifest)
    digests = {f"digest of {name}": str(text)[:12] for name, text in manifest.get("digests", {}).items()}
    return digests | {f"version of {name}": str(text) for name, text in manifest.get("versions", {}).items()}


def _dice(runs: Sequence[ReportedRun]) -> ComparedTable:
    records, rows, columns = [], [], common_dices([run.task for run in runs])
    for run in runs:
        table = run.table("table1")
        if table is None:
            continue
        model = table["model"].iloc[0]
        by_fold = {row["fold"]: row for row in table[table["model"] == model].to_dict("records")}
        mean, sd = by_fold["mean"], by_fold["sd"]
        folds = sum(str(fold).isdigit() for fold in by_fold)
        record = {"run": run.name, "model": model, "folds": folds, "cases": mean["cases"]}
        records.append(record | {c: mean[c] for c in columns} | {f"{c}_sd": sd[c] for c in columns})
        cells = [mean_sd(mean[column], sd[column], 4) for column in columns]
        rows.append(Row([run.name, str(model), str(folds), str(mean["cases"]), *cells]))
    header = ["run", "model", "folds", "cases", *columns.values()]
    note = "Mean over a fold's cases, then over folds ± sample sd between folds."
    title = "Table 1 of each run: Dice out of fold"
    return pd.DataFrame(records), PageTable("dice", title, header, rows, note, words=["model"])


def _uncertainty(runs: Sequence[ReportedRun]) -> ComparedTable:
    records, rows = [], []
    figures = [figure for part in shown_by_kind("comparison").values() for figure in part]
    tables = {run.name: table for run in runs if (table := run.table("table2")) is not None}
    for protocol in dict.fromkeys(protocol for table in tables.values() for protocol in table["protocol"]):
        rows.append(Row([f"{protocol} mask"], "part"))
        for run, table in tables.items():
            part = table[table["protocol"] == protocol].set_index("estimator")
            for what in ("head", "best floor"):
                cells = []
                for figure in figures:
                    values = part[figure.key].to_dict()
                    name = HEAD if what == "head" else best_floor(values, figure.key, constant=False)
                    known = name is not None and name in values
                    mean, sd = (values[name], part.at[name, f"{figure.key}_std"]) if known else (math.nan, math.nan)
                    called = "" if what == "head" else f" ({NAMES.get(str(name), name)})"
                    cells.append(f"{mean_sd(mean, sd, 3)}{called}" if known else "none")
                    record = {"protocol": protocol, "run": run, "figure": figure.key, "estimator": name}
                    records.append(record | {"mean": mean, "sd": sd})
                rows.append(Row([run, what, *cells], "" if what == "head" else "floor"))
    header = ["run", "map", *(figure.label for figure in figures)]
    note = (
        "Mean ± sample sd between folds. Each run has its own best floor, which needs no training and is to be beaten."
    )
    title = "Table 2 of each run: the head and the best floor, per protocol"
    return pd.DataFrame(records), PageTable("uncertainty", title, header, rows, note, words=["map"])


def _different_cases(first: str, a: pd.DataFrame, other: str, b: pd.DataFrame) -> list[str]:
    """Sentences on the cases that only one of two runs has, or that are in other folds."""
    folds_a, folds_b = (scores.drop_duplicates("case").set_index("case")["fold"] for scores in (a, b))
    lines = [
        f"Only in {name} ({len(only)}), and left out of the paired differences: {', '.join(only)}."
        for name, here, there in ((first, folds_a, folds_b), (other, folds_b, folds_a))
        if (only := sorted(set(here.index) - set(there.index)))
    ]
    both = folds_a.index.intersection(folds_b.index)
    if moved := sorted(both[(folds_a[both] != folds_b[both]).to_numpy()]):
        lines.append(f"In another fold of {other} than of {first} ({len(moved)}): {', '.join(moved)}.")
    if not len(both):
        lines.append(f"{first} and {other} have no case in common: nothing can be paired.")
    return lines
