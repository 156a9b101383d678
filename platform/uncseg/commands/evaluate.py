"""``uncseg evaluate``, and the same as the last part of ``uncseg cross-validate``."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.cross_validation import FREE_TO_CHANGE, refuse_other_settings
from uncseg.cluster.inference import evaluate_out_of_fold
from uncseg.cluster.members import all_done
from uncseg.cluster.node_checks import require_storage
from uncseg.cluster.prepare import prepare
from uncseg.cluster.ray_session import ray_session
from uncseg.cluster.resources import Slots, plan_slots
from uncseg.config import Experiment, load_experiment
from uncseg.console import console, counting
from uncseg.dataset.brats import BratsCase
from uncseg.dataset.prepare import chosen_cases
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.tables import beats_floor, show_table1, show_table2, table1, table2, write_table
from uncseg.layout import PreparedFolder, RunFolder, SweepFolder
from uncseg.report.html import Reported, write_report
from uncseg.report.run_figures import draw_run
from uncseg.report.score_tables import show_summary, write_scores
from uncseg.tracking.spool import epoch_table


def evaluate_run(root: Path, overrides: list[str] | None = None, trust: bool = False) -> int:
    """Predict and score a run's finished folds, and write its tables and figures (``uncseg evaluate RUN``).

    Args:
        root: the run's folder.
        overrides: ``FIELD=VALUE`` for the experiment that it was started with; what it computes can't change.
        trust: let checkpoints run code of their own.
    """
    run, experiment = run_to_use(root, overrides)
    folds = finished_folds(experiment, run)
    if not folds:
        problem = Problem(str(root), "no finished fold", "at least one", "run uncseg cross-validate first")
        raise ProblemsFound("There is nothing to evaluate.", [problem])
    with ray_session(experiment.resources.ray_address) as own_ray:
        require_storage(experiment, own_ray)
        slots = plan_slots(experiment.resources, len(folds), connected_cluster(experiment.resources, own_ray))
        with counting() as progress:
            prepared = prepare(experiment, progress=progress)
        evaluate_folds(experiment, prepared, run, folds, slots, trust)
    return 0


def run_to_use(root: Path, overrides: list[str] | None = None) -> tuple[RunFolder, Experiment]:
    """A run's folder and the experiment it was started with, carried out as ``overrides`` say.

    Raises:
        ProblemsFound: where the folder is none of a run, or the overrides would make it another experiment.
    """
    run = RunFolder(root.resolve())
    if not run.experiment.is_file():
        problem = Problem(str(root), "no experiment.yaml", "the folder of a run", "give RUNS/NAME")
        if SweepFolder(run.root).content.is_file():
            advice = f"give one of its trials, {root}/trials/NAME; uncseg ui {root} shows all of it"
            problem = Problem(str(root), "a sweep", "the folder of a run", advice)
        raise ProblemsFound("There is no such run.", [problem])
    experiment = load_experiment(run.experiment, overrides)
    # starting over, as a training would advise, costs the very run that is to be used
    advice = f"leave it out: of a trained run only {', '.join(FREE_TO_CHANGE)} can be changed"
    refuse_other_settings(experiment, run, advice)
    return run, experiment


def finished_folds(experiment: Experiment, run: RunFolder) -> list[int]:
    """Folds of a run whose training has ended."""
    return [fold for fold in range(experiment.split.folds) if all_done(experiment, run, fold)]


def evaluate_folds(
    experiment: Experiment,
    prepared: PreparedFolder,
    run: RunFolder,
    folds: Sequence[int],
    slots: Slots,
    trust: bool = False,
) -> None:
    """Predict and score every case of the given folds, then write and print the run's tables and figures.

    Raises:
        ProblemsFound: naming every case that could not be evaluated; what was finished is kept.
    """
    cases, _ = chosen_cases(experiment)
    with counting() as progress:

        def show(done: int, of: int) -> None:
            progress("out-of-fold cases", done, of)

        per_case, scores = evaluate_out_of_fold(experiment, prepared, run, cases, folds, slots, show, trust)
    epochs = epoch_table(run.spool)
    epochs = epochs[epochs["fold"].isin(folds)]
    first = table1(per_case, _baseline(experiment, per_case))
    second = table2(per_case, epochs, experiment.evaluation.last_epochs)
    for frame, name in ((per_case, "per_case"), (epochs, "epochs"), (first, "table1"), (second, "table2")):
        write_table(frame, run.tables, name)
    summary = write_scores(scores, run.tables, "scores")
    draw_run(run, cases, per_case, scores, epochs, experiment.evaluation.last_epochs)
    _write_report(run, experiment, cases)
    console.print(show_summary(summary, len(per_case)))
    console.print(show_table1(first))
    console.print(show_table2(second))
    for line in beats_floor(second):
        console.print(line)


def _write_report(run: RunFolder, experiment: Experiment, cases: Sequence[BratsCase]) -> None:
    try:
        page = write_report([Reported(run, experiment, cases)])
    except Exception as error:  # it shows what is kept in the tables already
        console.print(f"no report ({error}); once mended: uncseg report {run.root}", soft_wrap=True)
    else:
        console.print(f"report:  {page}", soft_wrap=True)


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
