"""A sweep's own run in MLflow: the trials' parent, with their table, the best one and its description."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from mlflow.entities import Metric

from uncseg.config.experiment import Experiment
from uncseg.files import read_json
from uncseg.layout import RunFolder, SweepFolder
from uncseg.provenance import describe_source
from uncseg.studies.parent_run import open_parent_run
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.trials import VALUES, read_trials
from uncseg.tracking.destination import open_store
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import now_ms
from uncseg.tracking.store import NOTE_TAG, PARENT_TAG, Store, storing
from uncseg.tracking.syncer import sync_run

MOST_COMPARED = 100
"""Trials that a link to MLflow's comparison names: a browser's address is only so long."""


def open_sweep_run(folder: SweepFolder, sweep: Sweep, base: Experiment) -> str:
    """Id of the sweep's own run in MLflow, made where MLflow has none."""
    tags = {"uncseg.sweep": sweep.name} | describe_source("uncseg sweep", None)
    return open_parent_run(folder.manifest, base, sweep.name, tags, _params(sweep))


def _params(sweep: Sweep) -> dict[str, str]:
    return {
        "search": sweep.search.type,
        "scheduler": sweep.scheduler.type,
        "trials": str(sweep.trials),
        "folds": ", ".join(map(str, sweep.folds)),
        "objectives": ", ".join(f"{one.mode} {one.metric}" for one in sweep.objectives),
        **{f"space.{field}": str(words) for field, words in sweep.space.items()},
    }


def log_sweep(folder: SweepFolder, sweep: Sweep, base: Experiment, table: pd.DataFrame, best: str | None) -> None:
    """Log tables, figures and the best trial, and give each trial its rank.

    Args:
        table: one row a trial, the best first, as ``rank_trials`` gives it.
        best: its name, where there is one.

    Raises:
        ProblemsFound, MlflowException: MLflow does not take it.
    """
    store = open_store(base.tracking_uri, base.tracking.experiment)
    record = MlflowRecord.read(folder.manifest)
    run_id = record.parent.run_id
    if record.parent.end_ms is None or record.best != best:
        record.best, record.parent.end_ms = best, now_ms()
        record.write(folder.manifest)
    if best is not None:
        values = table[table["trial"] == best].iloc[0]
        rows = [Metric(f"best/{metric}", values[metric], record.parent.end_ms, 0) for metric in sweep.metrics]
        store.log_metrics(run_id, rows)
        store.set_tags(run_id, {"uncseg.best": best})
    runs = [_tag_trial(store, folder, run_id, row, rank) for rank, row in enumerate(table.to_dict("records"), start=1)]
    store.set_tags(run_id, {NOTE_TAG: _describe(store, folder, sweep, table, best, [run for run in runs if run])})
    store.set_status(run_id, "FAILED" if best is None else "FINISHED", record.parent.end_ms)
    with storing("the sweep's tables and figures"):
        for artifacts in (folder.tables, folder.figures):
            for file in sorted(artifacts.glob("[!.]*")):
                store.log_file(run_id, file, artifacts.name)
        if best is not None:
            store.log_file(run_id, folder.best)


def _tag_trial(store: Store, folder: SweepFolder, parent: str, row: Mapping[Any, Any], rank: int) -> str | None:
    """Give a trial's run its rank; its id, where it has one."""
    run_id = MlflowRecord.read(RunFolder(folder.trials / str(row["trial"])).manifest).parent.run_id
    if not run_id:
        return None
    tags = {PARENT_TAG: parent, "uncseg.rank": str(rank), "uncseg.state": str(row["state"])}
    for name, tag in (("front", "pareto_front"), ("feasible", "feasible"), ("promoted", "promoted")):
        if name in row:
            tags[f"uncseg.{tag}"] = str(row[name]).lower()
    store.set_tags(run_id, tags)
    return run_id


def _describe(
    store: Store, folder: SweepFolder, sweep: Sweep, table: pd.DataFrame, best: str | None, runs: list[str]
) -> str:
    """The result in three lines of Markdown."""
    lines = [f"**No best trial** among {len(table)}", ""]
    if best is not None:
        row = table[table["trial"] == best].iloc[0]
        figures = ", ".join(f"{metric} {row[metric]:.4f} ± {row[f'{metric}_std']:.4f}" for metric in sweep.metrics)
        values = ", ".join(f"{field} {value}" for field, value in read_json(folder.trials / best / VALUES).items())
        lines = [f"**Best of {len(table)} trials**, {best}: {figures}", f"with {values}"]
    page = f"{store.run_page(MlflowRecord.read(folder.manifest).parent.run_id)}/artifacts"
    links = [f"[table]({page}/tables/trials.csv)", f"[importances]({page}/tables/importances.csv)"]
    if runs:
        compared, experiments = (quote(json.dumps(ids)) for ids in (runs[:MOST_COMPARED], [store.experiment_id]))
        links.insert(0, f"[compare the trials](#/compare-runs?runs={compared}&experiments={experiments})")
    return "  \n".join([line for line in lines if line] + [" · ".join(links)]) + "\n"


def sync_sweep(root: Path, tracking_uri: str | None = None) -> int:
    """Bring MLflow to what a sweep's folder says: its own run, its trials, their ranks.

    Args:
        root: the sweep's folder.
        tracking_uri: where to; None: where it went before.

    Returns:
        Number of the trials' epochs and uploads that are left.

    Raises:
        ProblemsFound: MLflow cannot be reached.
    """
    folder = SweepFolder(root.resolve())
    content = read_json(folder.content)
    sweep = Sweep.model_validate({"base": str(folder.content)} | content["sweep"])
    base = Experiment.model_validate(content["experiment"])
    record = MlflowRecord.read(folder.manifest)
    uri = tracking_uri or record.tracking_uri or base.tracking_uri
    base = base.model_copy(update={"tracking": base.tracking.model_copy(update={"uri": uri})})
    parent, left = open_sweep_run(folder, sweep, base), 0
    for trial in read_trials(folder.trials, sweep):
        run = RunFolder(folder.trials / trial.name)
        if run.experiment.is_file():
            left += sync_run(run.root, uri, parent)
    if record.parent.end_ms is not None:
        log_sweep(folder, sweep, base, pd.read_parquet(folder.tables / "trials.parquet"), record.best)
    return left
