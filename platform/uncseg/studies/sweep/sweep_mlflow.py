"""What MLflow is told about a sweep: the best trial, the rank of each trial, and links to compare them."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from uncseg.files import json_text
from uncseg.layout import RunFolder
from uncseg.studies.parent_run import ParentRun
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.trials import best_trial, read_values
from uncseg.table_files import read_table
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.store import PARENT_TAG

MOST_COMPARED = 100
"""Trials that a link to MLflow's comparison names: the length of an address is limited."""


def log_sweep(parent: ParentRun, sweep: Sweep) -> None:
    """Log the result of a sweep that has ended, as its tables say: the best trial, and the rank of every trial.

    Raises:
        ProblemsFound, MlflowException: MLflow does not take it.
    """
    folder = SweepFolder(parent.folder.root)
    table = read_table(folder.tables, "trials")
    if table is None:
        return
    best = best_trial(table, sweep)
    runs = [_tag_trial(parent, row, rank) for rank, row in enumerate(table.to_dict("records"), start=1)]
    links = _links(parent, [run for run in runs if run])
    if best is None:
        parent.log({}, f"**No best trial** among {len(table)}  \n{links}\n", failed=True)
        return
    row = table[table["trial"] == best].iloc[0]
    metrics = ", ".join(f"{metric} {row[metric]:.4f} ± {row[f'{metric}_std']:.4f}" for metric in sweep.metrics)
    values = ", ".join(f"{field} {value}" for field, value in read_values(folder.runs / best).items())
    note = f"**Best of {len(table)} trials**, {best}: {metrics}  \nwith {values}  \n{links}\n"
    parent.store.set_tags(parent.run_id, {"uncseg.best": best})
    parent.log({f"best/{metric}": float(row[metric]) for metric in sweep.metrics}, note, [folder.best])


def _tag_trial(parent: ParentRun, row: Mapping[Any, Any], rank: int) -> str | None:
    """Give a trial's run its rank, and return its id; None where it has no run."""
    run_id = MlflowRecord.read(RunFolder(parent.folder.runs / str(row["trial"])).manifest).parent.run_id
    if not run_id:
        return None
    tags = {PARENT_TAG: parent.run_id, "uncseg.rank": str(rank), "uncseg.state": str(row["state"])}
    flags = {"front": "pareto_front", "feasible": "feasible", "promoted": "promoted"}
    tags |= {f"uncseg.{tag}": str(row[name]).lower() for name, tag in flags.items() if name in row}
    parent.store.set_tags(run_id, tags)
    return run_id


def _links(parent: ParentRun, runs: list[str]) -> str:
    tables = f"{parent.artifacts}/tables"
    links = [f"[table]({tables}/trials.csv)", f"[importances]({tables}/importances.csv)"]
    if runs:
        compared, experiments = (quote(json_text(ids)) for ids in (runs[:MOST_COMPARED], [parent.store.experiment_id]))
        links.insert(0, f"[compare the trials](#/compare-runs?runs={compared}&experiments={experiments})")
    return " · ".join(links)
