"""What the command line and the files tell of a wrong request, before torch, nnU-Net, Ray or MLflow are imported.

Each takes a second. The commands check more, as what they work with becomes known.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from uncseg.config.addresses import sqlite_path
from uncseg.config.experiment import Experiment
from uncseg.config.secret_addresses import ADVICE, secret_in
from uncseg.config.sections import Tracking
from uncseg.config.task_files import require_task
from uncseg.console import command_line
from uncseg.dataset.folders import require_folder
from uncseg.dataset.labels import as_convention
from uncseg.dataset.patients import as_patients
from uncseg.errors import Problem, ProblemsFound, raise_if_any, similar_path
from uncseg.layout import RunFolder
from uncseg.runs.cohort_task import cohort_task
from uncseg.runs.named_models import require_model
from uncseg.runs.needed_run import has_learnt, require_needed_run
from uncseg.runs.run_opening import open_existing_run, recorded_folds, refuse_other_settings, require_settings
from uncseg.studies.study_folder import find_study
from uncseg.tracking.reachable import require_reachable
from uncseg.tracking.reasons import problem_of

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set in the command of a Ray job."""


def fold_numbers(text: str | None) -> list[int] | None:
    """Return the numbers that ``--folds`` lists; None without it.

    Raises:
        ProblemsFound: they cannot be read.
    """
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        problem = Problem("--folds", text, "whole numbers separated by commas, for example 0,1", "correct the list")
        raise ProblemsFound("The folds cannot be read.", [problem]) from error


def folds_to_train(experiment: Experiment, folds: Sequence[int] | None) -> list[int]:
    """Return the folds that ``--folds`` names, sorted; all for None.

    Raises:
        ProblemsFound: the experiment has no such fold.
    """
    possible = range(experiment.split.folds)
    chosen = possible if folds is None else folds
    wrong = [fold for fold in chosen if fold not in possible]
    if wrong or not chosen:
        found, expected = ", ".join(map(str, wrong)) or "no fold", f"folds from 0 to {possible[-1]}"
        raise ProblemsFound("The folds cannot be trained.", [Problem("--folds", found, expected, "correct the list")])
    return sorted(set(chosen))


def check_training(experiment: Experiment, folds: Sequence[int] | None) -> None:
    """Refuse a cross-validation of folds, data or settings that cannot work.

    Raises:
        ProblemsFound: saying why.
    """
    chosen, run = folds_to_train(experiment, folds), RunFolder(experiment.run_folder)
    refuse_other_settings(experiment, run)
    require_needed_run(experiment, chosen)
    require_cross_fitted(experiment, run)
    check_cases(experiment, begun=run.experiment.is_file())
    check_tracking(experiment, begun=run.experiment.is_file())


def require_cross_fitted(experiment: Experiment, run: RunFolder) -> None:
    """Refuse the cross-fitted map as the cases' uncertainty where no fold learns one, or has learnt one.

    Raises:
        ProblemsFound: saying so.
    """
    if experiment.evaluation.uncertainty != "cross_fitted" or experiment.failures.learns:
        return
    if run.experiment.is_file() and any(has_learnt(run, fold) for fold in range(experiment.split.folds)):
        return
    found = "cross_fitted, and failures.perceptron, failures.trees and failures.steps are 0"
    advice = "set `failures.perceptron` to 32, or remove it"
    problem = Problem("evaluation.uncertainty", found, "a map that the folds will have", advice)
    raise ProblemsFound("The cases would have no uncertainty.", [problem])


def check_tracking(experiment: Experiment, begun: bool) -> None:
    """Refuse an MLflow that cannot be reached, in seconds; a run that has begun keeps in its spool what that misses.

    In a Ray job, where Ray runs already, it is refused with what else is wrong there.

    Raises:
        ProblemsFound: saying why.
    """
    uri = experiment.tracking_uri
    if begun or JOB_VARIABLE in os.environ:
        return
    try:
        require_reachable(uri, sqlite_path(uri))
    except Exception as error:  # of the network, the database, its driver
        raise ProblemsFound("MLflow cannot be reached.", [problem_of("tracking.uri", uri, error)]) from error


def check_cases(experiment: Experiment, begun: bool = False) -> None:
    """Refuse a dataset that is not there or does not fit the split, and a storage that cannot be written to.

    Args:
        experiment: whose dataset it is.
        begun: the command goes on, and says itself how the cases differ from those it began with.

    Raises:
        ProblemsFound: saying why.
    """
    raise_if_any(problems_of_place(experiment.storage.path), "The experiment has no place.")
    dataset = experiment.dataset
    if JOB_VARIABLE in os.environ and not dataset.path.is_absolute():
        return  # refused with other relative paths of a Ray job
    if dataset.phantoms is None:
        if not dataset.path.exists():
            advice = similar_path(dataset.path, "correct the path, or make phantoms: uncseg phantom")
            problem = Problem("dataset.path", f"nothing at {dataset.path}", "a folder of cases", advice)
            raise ProblemsFound(f"The dataset {dataset.path} cannot be used.", [problem])
        if not begun:
            from uncseg.dataset.preparation import chosen_cases

            chosen_cases(experiment)
    elif experiment.split.given is None and experiment.split.folds > dataset.phantoms.cases:
        found = f"{experiment.split.folds} folds for {dataset.phantoms.cases} phantoms"
        problem = Problem(
            "split.folds",
            found,
            f"at most as many folds as {experiment.split.drawn}",
            "write more phantoms, or fewer folds",
        )
        raise ProblemsFound("The cases cannot be used as the experiment says.", [problem])


def problems_of_place(path: Path) -> list[Problem]:
    """Return why nothing can be written to a folder, which need not be there yet; ``storage.path`` is blamed."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return []
    found = f"{there}, {'which cannot be written to' if there.is_dir() else 'a file'}"
    return [Problem("storage.path", found, "a folder of yours", "write another path")]


def check_evaluation(
    root: Path,
    other: Path | None,
    dataset: Path | None,
    overrides: list[str] | None,
    convention: str | None,
    patients: str | None,
    task: str | None,
) -> None:
    """Refuse to evaluate, or compare, what is no run or has no finished fold, and cases that are missing or do not fit.

    Raises:
        ProblemsFound: saying why.
    """
    if other is not None and dataset is not None:
        problem = Problem("--dataset", "a second run as well", "one of the two", "leave one out")
        raise ProblemsFound("The request is ambiguous.", [problem])
    alone = {} if dataset is not None else {"patients": patients, "convention": convention, "task": task}
    problems = [
        Problem(f"--{name}", text, f"--dataset as well: a run has dataset.{name}", "leave it out, or add --dataset")
        for name, text in alone.items()
        if text is not None
    ]
    raise_if_any(problems, "The request is ambiguous.")
    as_patients(patients)
    wanted = require_task(task)
    if other is not None:
        where, expected = f"--set {(overrides or [''])[0]}", "one run to evaluate: of two runs, tables are compared"
        ambiguous = [Problem(where, "a second run as well", expected, "leave it out")] if overrides else []
        raise_if_any(ambiguous, "The request is ambiguous.")
        runs_to_compare(root, other)
    elif dataset is not None:
        require_folder(dataset)
        if (trained := require_model(str(root), None, overrides)) is not None:
            as_convention(convention, "--convention", cohort_task(dataset, trained, wanted).task)
    else:
        run, experiment = open_existing_run(root, overrides)
        if not recorded_folds(experiment, run):
            problem = Problem(str(root), "no finished fold", "at least one", "run uncseg cross-validate first")
            raise ProblemsFound("There is nothing to evaluate.", [problem])
        require_cross_fitted(experiment, run)


def runs_to_compare(first: Path, second: Path) -> list[tuple[RunFolder, Experiment]]:
    """Open two evaluated runs.

    Raises:
        ProblemsFound: they are one run, or one of them is none or has no scores.
    """
    same = [Problem("RUN_B", f"{second}, which is RUN_A", "another run", "give two runs")]
    raise_if_any(same if first.resolve() == second.resolve() else [], "The runs cannot be compared.")
    opened = [open_existing_run(root) for root in (first, second)]
    files = {
        run.tables / "scores.parquet": f"first: {command_line('uncseg', 'evaluate', run.root)}" for run, _ in opened
    }
    missing = [Problem(str(f), "no scores", "an evaluated run", a) for f, a in files.items() if not f.is_file()]
    raise_if_any(missing, "The runs cannot be compared.")
    return opened


def check_prediction(
    source: str, folder: Path, output: Path, folds: Sequence[int] | None, overrides: list[str] | None
) -> None:
    """Refuse a model or an input that is not there, a fold that is not finished, and an output that is the input.

    Raises:
        ProblemsFound: saying why.
    """
    if output.resolve() == folder.resolve():
        problem = Problem("OUTPUT", f"{output}, the folder of the images", "another folder", "choose one")
        raise ProblemsFound("The predictions cannot be written.", [problem])
    if output.exists() and not output.is_dir():
        problem = Problem("OUTPUT", f"{output}, a file", "a folder", "choose another name")
        raise ProblemsFound("The predictions cannot be written.", [problem])
    require_folder(folder)
    require_model(source, folds, overrides)


def check_report(roots: Sequence[Path]) -> None:
    """Refuse folders that are no runs, or one that is given twice.

    Raises:
        ProblemsFound: saying which.
    """
    if len({root.resolve() for root in roots}) < len(roots):
        problem = Problem("RUN", ", ".join(map(str, roots)), "different runs", "give each run once")
        raise ProblemsFound("The runs cannot be compared.", [problem])
    for root in roots:
        open_existing_run(root)


def check_synced(root: Path, tracking_uri: str | None) -> None:
    """Refuse a folder that holds no run, sweep or benchmark, and an address that cannot be one.

    Raises:
        ProblemsFound: saying why.
    """
    if tracking_uri is not None:
        require_address(tracking_uri)
    if find_study(root.resolve()) is None and not RunFolder(root.resolve()).experiment.is_file():
        require_settings(RunFolder(root))
        found = "no run, sweep or benchmark" if root.is_dir() else "a file" if root.exists() else "nothing"
        expected = "the folder of one, with experiment.yaml, sweep.json or benchmark.json"
        problem = Problem(str(root), found, expected, similar_path(root, "give RUNS/NAME"))
        raise ProblemsFound(f"There is no run in {root}.", [problem])


def require_address(uri: str) -> None:
    """Refuse what cannot be the address of a server or a database, and what holds a secret.

    Raises:
        ProblemsFound: naming the option.
    """
    if (secret := secret_in(uri)) is not None:
        problem = Problem("--tracking-uri", f"{secret}, which would be stored and shown", "an address alone", ADVICE)
        raise ProblemsFound("MLflow cannot be reached.", [problem])
    try:
        Tracking(uri=uri)
    except ValueError as error:
        expected = "an address, as http://HOST:PORT or sqlite:///FILE"
        problem = Problem("--tracking-uri", "what is no address", expected, "correct it")
        raise ProblemsFound("MLflow cannot be reached.", [problem]) from error
