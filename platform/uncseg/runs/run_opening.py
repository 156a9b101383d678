"""Opening a run's folder: its experiment, whether it can go on with other settings, and the locks on its folds."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from uncseg.config.experiment import Experiment, load_experiment, save_experiment
from uncseg.config.fields import differences, is_within
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import file_lock
from uncseg.layout import RunFolder, SweepFolder
from uncseg.runs.ensemble_members import all_members_done

# sections that change how a run is carried out, not what it computes
NEW_RUN = "write another name for the new run, or delete the folder to start over"
FREE_TO_CHANGE = ("resources", "tracking", "storage", "evaluation", "training.loader_processes")


def open_run(experiment: Experiment) -> RunFolder:
    """The run's folder, with the experiment as resolved in it."""
    run = RunFolder(experiment.run_folder)
    run.root.mkdir(parents=True, exist_ok=True)
    save_experiment(experiment, run.experiment)
    return run


def refuse_other_settings(experiment: Experiment, run: RunFolder, advice: str | None = None) -> None:
    """Look whether the run's folder holds a run of the same name with other settings.

    Raises:
        ProblemsFound: naming every field that differs.
    """
    if run.experiment.exists():
        before = yaml.safe_load(run.experiment.read_text(encoding="utf-8"))
        now = experiment.resolved().model_dump(mode="json")
        problems = differing_settings(before, now, advice or NEW_RUN)
        if problems:
            raise ProblemsFound(f"The run {run.root} exists with other settings.", problems)


def differing_settings(before: object, now: object, advice: str = NEW_RUN) -> list[Problem]:
    """Return a problem for each field that differs, except those of ``FREE_TO_CHANGE``."""
    return [
        Problem(name, str(new), f"{old}, as the run was started", advice)
        for name, old, new in differences(before, now)
        if not is_within(name, FREE_TO_CHANGE)
    ]


def locked_folds(run: RunFolder, folds: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """Keep other commands from training the same folds of the same run meanwhile; see :func:`locked`."""
    locks = {f"{run.root}, fold {fold}": run.root / f".fold_{fold}.lock" for fold in folds}
    return locked("The folds are being trained already.", locks)


@contextlib.contextmanager
def locked(title: str, locks: Mapping[str, Path]) -> Iterator[None]:
    """Keep other commands from the same work meanwhile; a killed command holds nothing.

    Args:
        title: of the error.
        locks: name of a piece of work → file that is locked.

    Raises:
        ProblemsFound: naming what another command is at.
    """
    problems = []
    with contextlib.ExitStack() as held:
        for what, file in locks.items():
            try:
                held.enter_context(file_lock(file, wait=False))
            except BlockingIOError:
                found, advice = "another command at work on it", "wait for it, stop it, or write another name"
                problems.append(Problem(what, found, "nobody", advice))
            except OSError:
                continue  # a file system without locks
        if problems:
            raise ProblemsFound(title, problems)
        yield


def open_existing_run(root: Path, overrides: list[str] | None = None) -> tuple[RunFolder, Experiment]:
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
    return [fold for fold in range(experiment.split.folds) if all_members_done(experiment, run, fold)]
