"""What the subcommands do, for the command line and for cluster jobs alike.

Running a command again continues it: a finished part is not done twice.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import pandas as pd

from uncseg.cluster.cross_validation import open_run, refuse_other_settings, train_folds
from uncseg.cluster.fold_worker import is_done
from uncseg.cluster.inference import evaluate_out_of_fold
from uncseg.cluster.prepare import prepare
from uncseg.cluster.ray_session import ray_session
from uncseg.cluster.resources import Slots, plan_slots
from uncseg.config import Experiment, load_experiment
from uncseg.console import FoldProgress, console, counting
from uncseg.dataset.brats import find_cases
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.tables import beats_floor, show_table1, show_table2, table1, table2, write_table
from uncseg.files import read_json
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.report.run_figures import draw_run
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.spool import epoch_table
from uncseg.tracking.sync import Syncer
from uncseg.tracking.tags import describe_versions, git_commit


def prepare_dataset(experiment: Experiment) -> PreparedFolder:
    """Check, plan, preprocess and split; one Ray task a case."""
    with ray_session(experiment.resources.ray_address), counting() as progress:
        return prepare(experiment, progress=progress)


def cross_validate(experiment: Experiment, folds: Sequence[int] | None = None, dry_run: bool = False) -> int:
    """Prepare, train the folds, predict every case out of fold, write the tables, fill MLflow.

    Args:
        folds: folds to train; None: all.
        dry_run: check everything and print the plan, train nothing.

    Returns:
        0, or 1 where a fold failed (the others are finished and evaluated).
    """
    folds = _chosen_folds(experiment, folds)
    refuse_other_settings(experiment)
    with ray_session(experiment.resources.ray_address):
        slots = plan_slots(experiment.resources, len(folds))
        with counting() as progress:
            prepared = prepare(experiment, progress=progress)
        _print_plan(experiment, prepared, folds, slots)
        if dry_run:
            return 0
        run = open_run(experiment)
        update_manifest(run, digests=read_json(prepared.done)["digests"], versions=describe_versions())
        syncer = _syncer(experiment, prepared, run, folds)
        syncer.start()
        outcome: Literal["finished", "failed", "interrupted"] = "interrupted"
        try:
            failed = _train(experiment, prepared, run, folds, slots)
            # folds that an earlier command trained belong to the run's tables too
            finished = _finished(experiment, run)
            if finished:
                _evaluate(experiment, prepared, run, finished, slots)
            syncer.finish()
            outcome = "failed" if failed else "finished"
        except KeyboardInterrupt:
            _leave_at_once(syncer)
        finally:
            left = syncer.stop(outcome)
    _print_end(experiment, run, failed, left)
    return 1 if failed else 0


def _leave_at_once(syncer: Syncer) -> NoReturn:
    """End the process after Ctrl-C; the Ray it started, or its job on a cluster, ends with it.

    Threads still wait for their folds: shutting Ray down under them makes Ray abort the process with a C++ error.
    """
    syncer.stop("interrupted")
    console.print("stopped; the same command goes on from the last checkpoints")
    sys.stdout.flush()
    os._exit(1)


def evaluate_run(root: Path) -> int:
    """Predict and score a run's finished folds, and write its tables and figures (``uncseg evaluate RUN``)."""
    run = RunFolder(root.resolve())
    if not run.experiment.is_file():
        problem = Problem(str(root), "no experiment.yaml", "the folder of a run", "give RUNS/NAME")
        raise ProblemsFound("There is no run to evaluate.", [problem])
    experiment = load_experiment(run.experiment)
    folds = _finished(experiment, run)
    if not folds:
        problem = Problem(str(root), "no finished fold", "at least one", "run uncseg cross-validate first")
        raise ProblemsFound("There is nothing to evaluate.", [problem])
    with ray_session(experiment.resources.ray_address):
        slots = plan_slots(experiment.resources, len(folds))
        with counting() as progress:
            prepared = prepare(experiment, progress=progress)
        _evaluate(experiment, prepared, run, folds, slots)
    return 0


def _finished(experiment: Experiment, run: RunFolder) -> list[int]:
    return [fold for fold in range(experiment.split.folds) if is_done(run, fold)]


def _chosen_folds(experiment: Experiment, folds: Sequence[int] | None) -> list[int]:
    possible = range(experiment.split.folds)
    if folds is None:
        return list(possible)
    wrong = [fold for fold in folds if fold not in possible]
    if wrong or not folds:
        found = ", ".join(map(str, wrong)) or "no fold"
        expected = f"folds from 0 to {possible[-1]}"
        raise ProblemsFound("The folds cannot be trained.", [Problem("--folds", found, expected, "correct the list")])
    return sorted(set(folds))


def _print_plan(experiment: Experiment, prepared: PreparedFolder, folds: Sequence[int], slots: Slots) -> None:
    waves = -(-len(folds) // slots.count)
    gpus = f", {slots.each.gpus:g} GPUs" if slots.each.gpus else ""
    console.print(
        f"{experiment.name}: folds {', '.join(map(str, folds))}, {experiment.training.epochs} epochs each; "
        f"{slots.count} side by side ({slots.each.cpus:g} CPUs{gpus} each), {waves} wave{'s' * (waves != 1)}"
    )
    console.print(f"prepared cases: {prepared.root}\nrun:            {experiment.run_folder}")


def _syncer(experiment: Experiment, prepared: PreparedFolder, run: RunFolder, folds: Sequence[int]) -> Syncer:
    done = read_json(prepared.done)
    tags = {f"{name}_digest": value for name, value in done["digests"].items()}
    tags |= {f"version_{name}": value for name, value in describe_versions().items()}
    commit = git_commit(Path(__file__).parent)
    if commit is not None:
        tags["git_commit"] = commit
    content = experiment.model_dump(mode="json")
    artifacts = experiment.storage.path.resolve() / "mlflow_artifacts" if experiment.tracking.uri is None else None
    return Syncer(
        run, experiment.tracking_uri, experiment.tracking.experiment, content, folds, tags, artifact_location=artifacts
    )


def _train(
    experiment: Experiment, prepared: PreparedFolder, run: RunFolder, folds: Sequence[int], slots: Slots
) -> dict[int, str]:
    with FoldProgress(run, folds, experiment.training.epochs).shown() as progress:
        failed = train_folds(experiment, prepared, run, folds, slots, progress)
    for fold, message in failed.items():
        console.print(f"fold {fold} failed: {message}")
    return failed


def _evaluate(
    experiment: Experiment, prepared: PreparedFolder, run: RunFolder, folds: Sequence[int], slots: Slots
) -> None:
    cases = find_cases(experiment.dataset.path)
    with counting() as progress:
        per_case = evaluate_out_of_fold(
            experiment, prepared, run, cases, folds, slots, lambda done, n: progress("out-of-fold cases", done, n)
        )
    epochs = epoch_table(run.spool)
    epochs = epochs[epochs["fold"].isin(folds)]
    first = table1(per_case, _baseline(experiment, per_case))
    second = table2(per_case, epochs, experiment.evaluation.last_epochs)
    for frame, name in ((per_case, "per_case"), (epochs, "epochs"), (first, "table1"), (second, "table2")):
        write_table(frame, run.tables, name)
    draw_run(run, cases, per_case, epochs)
    console.print(show_table1(first))
    console.print(show_table2(second))
    for line in beats_floor(second):
        console.print(line)


def _baseline(experiment: Experiment, per_case: pd.DataFrame) -> pd.DataFrame | None:
    """Per-case table of the run without the head, where it exists and has the same cases in the same folds."""
    if experiment.evaluation.baseline is None:
        return None
    file = RunFolder(experiment.storage.path.resolve() / experiment.evaluation.baseline).tables / "per_case.parquet"
    if not file.is_file():
        console.print(f"Table 1 has no column without the head: {file} does not exist yet.")
        return None
    baseline = pd.read_parquet(file)
    baseline = baseline[baseline["fold"].isin(per_case["fold"])]
    pairs = ["case", "fold"]
    if set(map(tuple, baseline[pairs].to_numpy())) != set(map(tuple, per_case[pairs].to_numpy())):
        console.print(f"Table 1 has no column without the head: {file} holds other cases or folds.")
        return None
    return baseline


def _mlflow() -> str:
    """The mlflow command of this environment, as short as it can be typed here."""
    command = Path(sys.executable).with_name("mlflow")
    if shutil.which("mlflow") == str(command):
        return "mlflow"
    return str(command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command)


def _print_end(experiment: Experiment, run: RunFolder, failed: dict[int, str], left: int) -> None:
    console.print(f"tables:  {run.tables}\nfigures: {run.figures}\nmaps:    {run.out_of_fold}")
    console.print(f"MLflow:  {_mlflow()} ui --backend-store-uri {experiment.tracking_uri}", soft_wrap=True)
    if left:
        console.print(f"{left} records did not reach MLflow; when it is back: uncseg sync {run.root}")
    if failed:
        console.print(f"failed folds: {', '.join(map(str, sorted(failed)))}; the same command tries them again")
