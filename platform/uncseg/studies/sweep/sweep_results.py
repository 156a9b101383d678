"""The end of a sweep: its tables and figures, the best trial as an experiment file, and the log in MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from uncseg.config.experiment import Experiment
from uncseg.console import command_line, console
from uncseg.files import json_text
from uncseg.layout import RunFolder
from uncseg.method.checkpoints import remove_checkpoints
from uncseg.page_table import PageTable, Row, fixed, mean_sd
from uncseg.runs.run_opening import read_experiment
from uncseg.runs.run_plan import size_text
from uncseg.studies.parent_run import close_parent
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.importances import importances
from uncseg.studies.sweep.space import base_values, trial_experiment, write_trial
from uncseg.studies.sweep.sweep_file import FAILURES_SECTION, Sweep
from uncseg.studies.sweep.sweep_mlflow import log_sweep
from uncseg.studies.sweep.sweep_plots import draw_sweep
from uncseg.studies.sweep.trials import (
    Trial,
    best_trial,
    has_values,
    rank_trials,
    read_trials,
    read_values,
    reported_table,
)
from uncseg.table_files import write_table


def close_sweep(folder: SweepFolder, sweep: Sweep, base: Experiment, promoted: Sequence[str]) -> int:
    """Write, show and log what a sweep has found; return 0, or 1 where there is no best trial.

    ``promoted`` names the trials that went on to more folds.
    """
    trials = read_trials(folder.runs, sweep)
    if not trials:
        console.print("no trial has begun")
        return 1
    folds = sweep.promoted_folds(base)
    table = rank_trials(trials, sweep, [Trial.read(folder.runs / name, folds) for name in promoted])
    # the best trial is what the sweep is for: an error in what only explains it must not prevent it
    best = write_best(folder, sweep, base, table)
    write_table(table, folder.tables, "trials")
    console.print(trials_table(table, sweep).to_rich())
    shares, reported = importances(trials, sweep), reported_table(folder.runs)
    write_table(shares, folder.tables, "importances")
    write_table(reported, folder.tables, "epochs")
    draw_sweep(folder.figures, table, reported, sweep)
    console.print(importances_table(shares).to_rich())
    _show_base(table, base_values(sweep.space, base))
    console.print(f"best:    {folder.best} (trial {best})" if best else why_none(table, sweep), soft_wrap=True)
    if best and sweep.of_failures:
        console.print(f"for the run itself: {_evaluation(folder, base, best)}", soft_wrap=True)
    if best and "front" in table:
        console.print(f"front:   {folder.front}", soft_wrap=True)
    console.print(f"tables:  {folder.tables}\nfigures: {folder.figures}", soft_wrap=True)
    close_parent(folder, sweep, base, log_sweep)
    if best and sweep.keep_checkpoints == "best":
        _remove_other_checkpoints(folder, table, best)
    return 0 if best else 1


def _evaluation(folder: SweepFolder, base: Experiment, best: str) -> str:
    """Return the command by which the base's own run learns from failures as a trial did."""
    run = RunFolder(base.run_folder)
    before = read_experiment(run).get(FAILURES_SECTION, {})
    learnt = trial_experiment(base, best, folder.runs, read_values(folder.runs / best)).failures.model_dump(mode="json")
    changes = [
        f"{FAILURES_SECTION}.{name}={json_text(value)}" for name, value in learnt.items() if before.get(name) != value
    ]
    return command_line("uncseg", "evaluate", run.root, *(word for change in changes for word in ("--set", change)))


def _remove_other_checkpoints(folder: SweepFolder, table: pd.DataFrame, best: str) -> None:
    """Remove the checkpoints and error memories of all trials but the best, the front's and the promoted ones.

    No trial goes on once its sweep has ended. Without a best trial all are kept, so that the reason can be found.
    """
    kept = table["trial"] == best
    for column in {"front", "promoted"} & {*table}:
        kept |= table[column]
    others = [(folder.runs / str(trial)).glob("folds/*/*/fold_*") for trial in table["trial"][~kept]]
    freed = [size for size in (sum(map(remove_checkpoints, folds)) for folds in others) if size]
    if freed:
        text = f"removed: checkpoints of {len(freed)} other trials, {size_text(sum(freed))}"
        console.print(f"{text} (keep_checkpoints: all keeps them)")


def _show_base(table: pd.DataFrame, values: Mapping[str, Any] | None) -> None:
    """Print the rank of the base's own values, with which the best trial has to be compared."""
    for rank, row in enumerate(table.to_dict("records"), start=1):
        if values is not None and all(row[field] == value for field, value in values.items()):
            console.print(f"the base's own values: trial {row['trial']}, {rank} of {len(table)}, {row['state']}")


def write_best(folder: SweepFolder, sweep: Sweep, base: Experiment, table: pd.DataFrame) -> str | None:
    """Write the best trial of :func:`rank_trials` and the front as experiment files; remove those of earlier ones.

    Return the name of the best trial; None where no trial can be the best.

    Raises:
        ProblemsFound: one of the files is not uncseg's, or was edited.
    """
    best = best_trial(table, sweep)
    front = table["trial"][table["front"]].tolist() if "front" in table else []
    files = {folder.front / f"{name}.yaml": (f"{sweep.name}_{name}", name) for name in front}
    if best is not None:
        files[folder.best] = (f"{sweep.name}_best", best)
    outputs, names = folder.outputs, {file.relative_to(folder.root).as_posix() for file in files}
    with outputs.claimed(names):
        outputs.remove(set(outputs.noted()) - names)
        for file, (run, trial) in files.items():
            write_trial(base, run, read_values(folder.runs / trial), file)
    return best


def why_none(table: pd.DataFrame, sweep: Sweep) -> str:
    """Say what keeps every trial from being the best."""
    finished = table[table["state"] == "finished"]
    valued = has_values(finished, sweep).any()
    unvalued = "that was finished has a value of every objective" if len(finished) else "was finished"
    return f"no trial {'satisfies the constraints' if valued else unvalued}: there is no best one"


def trials_table(table: pd.DataFrame, sweep: Sweep) -> PageTable:
    """Return the trials as ranked; a metric or a field is named by the last parts of its name that are its own."""
    flags = [name for name in ("promoted", "feasible", "front") if name in table]
    header = ["trial", "state", *flags, "epochs", "folds", *_short(sweep.metrics), *_short(tuple(sweep.space))]
    rows = []
    for row in table.to_dict("records"):
        cells = [row["trial"], row["state"], *("yes" if row[flag] else "" for flag in flags)]
        cells += [str(row["epochs"]), str(row["folds"])]
        cells += [mean_sd(row[metric], row[f"{metric}_std"], 4) for metric in sweep.metrics]
        cells += [f"{row[field]:.4g}" if isinstance(row[field], float) else str(row[field]) for field in sweep.space]
        rows.append(Row(cells))
    title = f"{sweep.name}: trials, the best first; mean ± sd over folds"
    return PageTable("trials", title, header, rows, words=["state"])


def _short(names: Sequence[str]) -> list[str]:
    """Return the last parts of dotted or slashed names, as many as keep them distinct."""
    for parts in range(1, 5):
        short = ["/".join(name.replace(".", "/").split("/")[-parts:]) for name in names]
        if len(set(short)) == len(short):
            return short
    return list(names)


def importances_table(table: pd.DataFrame) -> PageTable:
    """Return the share of each objective's variance that each field explains, as ``importances`` computes it."""
    epoch, trials = table.iloc[0][["epoch", "trials"]]
    columns = table[["objective", "field", "importance"]].itertuples(index=False)
    rows = [Row([objective, field, fixed(share, 2, unknown="unknown")]) for objective, field, share in columns]
    title = f"Importances (fANOVA) at epoch {epoch}, which all of {trials} trials reached"
    header = ["objective", "field", "share of the variance"]
    return PageTable("importances", title, header, rows, words=["field"])
