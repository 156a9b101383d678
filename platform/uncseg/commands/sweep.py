"""``uncseg sweep``: trials of an experiment, the table of them, and the best as an experiment file."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from rich.table import Table

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.preflight import preflight
from uncseg.cluster.prepare import prepare
from uncseg.cluster.ray_session import ray_session, terminated_like_ctrl_c
from uncseg.cluster.sweep import rank_trials, run_sweep, trials_at_once
from uncseg.cluster.trial import VALUES, TrialSetup
from uncseg.commands.trial_events import TrialEvents
from uncseg.config import Experiment
from uncseg.console import console, counting
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.tables import write_table
from uncseg.files import digest, read_json, write_json
from uncseg.layout import RunFolder
from uncseg.sweep_file import Sweep, write_best
from uncseg.tracking.store import open_store


def sweep_experiment(sweep: Sweep, base: Experiment) -> int:
    """Run a sweep, or go on with it; print and write the table of trials, and the best one's experiment file.

    Returns:
        0, or 1 where no trial was finished.
    """
    folder = base.storage.path.resolve() / sweep.name
    _refuse_another(folder, sweep, base)
    with ray_session(base.resources.ray_address) as own_ray, terminated_like_ctrl_c():
        cluster = connected_cluster(base.resources, own_ray)
        # CPUs are shared among the folds of all trials, or one trial would take the whole machine
        slots = preflight(base, len(sweep.folds) * sweep.trials, cluster, own_ray, folder.exists())
        at_once = trials_at_once(sweep, slots, cluster)
        with counting() as progress:
            prepared = prepare(base.resolved(), progress=progress)
        _keep(folder, sweep, base)
        setup = TrialSetup(base.resolved(), prepared, folder / "trials", sweep.folds, sweep.objective, slots)
        console.print(f"{sweep.name}: {sweep.trials} draws of {len(sweep.folds)} folds, {at_once} trials side by side")
        events = TrialEvents(sweep, setup, _sweep_run(folder, sweep, base))
        try:
            run_sweep(sweep, setup, folder, at_once, [events])
        except KeyboardInterrupt:
            events.stop("interrupted")
            console.print("stopped; the same command goes on with the same trials")
            sys.stdout.flush()
            os._exit(1)  # trials still wait for their folds: see cross_validate
        events.stop()
    return _end(folder, sweep, base, _rows(setup))


def _rows(setup: TrialSetup) -> list[dict[str, Any]]:
    """Of every trial in the sweep's folder, those of earlier commands too."""
    files = sorted(setup.folder.glob(f"*/{VALUES}"))
    return [{"trial": file.parent.name, **setup.row(file.parent.name), **read_json(file)} for file in files]


def _content(sweep: Sweep, base: Experiment) -> dict[str, Any]:
    experiment = base.model_dump(mode="json", exclude={"resources", "tracking", "storage", "evaluation"})
    return {"sweep": sweep.model_dump(mode="json", exclude={"base"}), "experiment": experiment}


def _refuse_another(folder: Path, sweep: Sweep, base: Experiment) -> None:
    """Trials of other settings in the same table would be compared with these."""
    if RunFolder(folder).experiment.is_file():
        problem = Problem(str(folder), "a run of this name", "a folder for the sweep", "write another name")
        raise ProblemsFound("The sweep has no place.", [problem])
    file = folder / "sweep.json"
    if file.is_file() and digest(read_json(file)) != digest(_content(sweep, base)):
        problem = Problem(str(folder), "a sweep with other settings", "the same", "write another name, or delete it")
        raise ProblemsFound("The sweep exists with other settings.", [problem])


def _keep(folder: Path, sweep: Sweep, base: Experiment) -> None:
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", _content(sweep, base))


def _sweep_run(folder: Path, sweep: Sweep, base: Experiment) -> str:
    """The sweep's run in MLflow, made once."""
    file = folder / "manifest.json"
    if file.is_file():
        return str(read_json(file)["run_id"])
    artifacts = base.storage.path.resolve() / "mlflow_artifacts" if base.tracking.uri is None else None
    store = open_store(base.tracking_uri, base.tracking.experiment, artifacts)
    run_id = store.create_run(sweep.name, {"uncseg.sweep": sweep.name})
    write_json(file, {"run_id": run_id})
    return run_id


def _end(folder: Path, sweep: Sweep, base: Experiment, rows: Sequence[dict[str, Any]]) -> int:
    table = rank_trials(rows, sweep.objective)
    write_table(table, folder / "tables", "trials")
    console.print(_shown(table, sweep))
    best = table.iloc[0]
    finished = best["state"] == "finished"
    if finished:
        write_best(base, sweep, read_json(folder / "trials" / best["trial"] / VALUES), folder / "best.yaml")
        console.print(f"best:   {folder / 'best.yaml'}", soft_wrap=True)
    console.print(f"trials: {folder / 'tables'}", soft_wrap=True)
    try:
        _close_sweep_run(RunFolder(folder), base, finished)
    except (ProblemsFound, MlflowException) as error:
        console.print(f"MLflow did not take the table of trials; the same command tries again. {error}")
    return 0 if finished else 1


def _close_sweep_run(run: RunFolder, base: Experiment, finished: bool) -> None:
    store = open_store(base.tracking_uri, base.tracking.experiment)
    run_id = read_json(run.manifest)["run_id"]
    for file in sorted(run.tables.iterdir()):
        store.log_file(run_id, file, "tables")
    store.set_status(run_id, "FINISHED" if finished else "FAILED")


def _shown(table: pd.DataFrame, sweep: Sweep) -> Table:
    shown = Table(title=f"{sweep.name}: {sweep.objective.metric}, mean ± sd over folds {list(sweep.folds)}")
    for column in ("trial", "state", "epochs", "objective", *sweep.space):
        shown.add_column(column.rpartition(".")[2], justify="left" if column in ("trial", "state") else "right")
    for _, row in table.iterrows():
        values = [f"{row[field]:.4g}" if isinstance(row[field], float) else str(row[field]) for field in sweep.space]
        objective = f"{row['objective']:.4f}±{row['objective_std']:.4f}"
        shown.add_row(row["trial"], row["state"], str(row["epochs"]), objective, *values)
    return shown
