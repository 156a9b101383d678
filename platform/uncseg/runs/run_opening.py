"""The folder of a run: opening it, comparing its settings, its finished folds, and the locks on its work."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from uncseg.config.addresses import sqlite_path
from uncseg.config.case_lists import short_lists
from uncseg.config.experiment import Experiment, load_experiment, save_experiment, with_new_fields
from uncseg.config.fields import differences, is_within, problems_of_unused
from uncseg.config.reading import SECTIONS, read_saved
from uncseg.config.sections import Storage
from uncseg.config.task_files import short_task, task_of
from uncseg.console import command_line, warn
from uncseg.errors import DamagedFile, Problem, ProblemsFound, first_problems, listed, raise_if_any, similar_path
from uncseg.files import file_lock
from uncseg.layout import STUDY_FILES, PreparedFolder, RunFolder, own_database, storage_of
from uncseg.ownership import is_own_run, links_out, make_own
from uncseg.provenance import describe_versions
from uncseg.runs.fold_request import all_members_done, member_experiment
from uncseg.runs.own_folds import foreign_folds, unrecorded_folds
from uncseg.runs.run_data import changed_data, read_data, record_data
from uncseg.tasks.task import Task
from uncseg.tracking.lost_epochs import require_epochs
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.run_settings import ADVICE

FREE_TO_CHANGE = ("resources", "tracking", "storage", "evaluation", "failures", "training.loader_processes")
"""Sections and fields that change how a run is carried out, not what it computes."""
NOT_USED = ("name", "storage", "tracking", "training.loader_processes")
"""Those that no command uses which opens a trained run: nothing is trained, MLflow is filled by sync."""
OF_PLACES = ("name", "dataset.path")
"""Fields that say where a run and its cases lie: they may be moved, and the cases are compared by content."""
NEW_RUN = "write it as it was, or give the new run another name"


def open_run(experiment: Experiment) -> RunFolder:
    """Create the run's folder if necessary, write the resolved experiment into it, and return it."""
    run = RunFolder(experiment.run_folder)
    make_own(run.root)
    save_experiment(_in_its_storage(experiment, run.root), run.experiment)
    return run


def _in_its_storage(experiment: Experiment, root: Path) -> Experiment:
    """Return the experiment without the address of its storage's own database, which moves with the run."""
    if sqlite_path(experiment.tracking_uri) != sqlite_path(own_database(root)):
        return experiment
    return experiment.model_copy(update={"tracking": experiment.tracking.model_copy(update={"uri": None})})


def located(experiment: Experiment, root: Path) -> Experiment:
    """Return a run's experiment with the storage in which the run lies now, wherever it was begun."""
    update: dict[str, Any] = {"name": root.name, "storage": Storage(path=root.parent)}
    if experiment.tracking.uri is None and storage_of(root) != root.parent:  # the run of a study
        update["tracking"] = experiment.tracking.model_copy(update={"uri": own_database(root)})
    return experiment.model_copy(update=update)


def open_existing_run(
    root: Path, overrides: list[str] | None = None, edited: Callable[[Problem], None] | None = None
) -> tuple[RunFolder, Experiment]:
    """Return a run's folder, and its experiment with ``overrides`` applied and the storage in which the run lies now.

    Args:
        edited: called with each setting of its experiment.yaml that has changed since the run began; None: refuse them.

    Raises:
        ProblemsFound: the folder is not a run folder, or the overrides change what the run computes.
    """
    run = RunFolder(root.resolve())
    if not run.experiment.exists():
        require_settings(run)
        found, advice = "no experiment.yaml", similar_path(root, "give RUNS/NAME")
        if below := sorted(root.glob("*/*/experiment.yaml")):
            found = f"a folder of {len(below)} runs"
            advice = f"give one of them, for example {below[0].parent}"
            if run.manifest.is_file():  # a study in MLflow
                advice += f"; {command_line('uncseg', 'ui', root)} shows all of them"
        raise ProblemsFound("There is no such run.", [Problem(str(root), found, "the folder of a run", advice)])
    _refuse_links_of_others(run)
    changes = edited_settings(run)  # first: what follows trusts the file
    if edited is None:
        raise_if_any(changes, f"The settings of the run {run.root} were edited.")
    else:
        for change in changes:
            edited(change)
    experiment = load_experiment(run.experiment, overrides, saved=True)
    advice = "leave it out: of a trained run only evaluation, resources and dataset.path can be changed"
    raise_if_any(problems_of_unused(overrides or [], NOT_USED, advice), "The fields cannot be changed.")
    _refuse_differing(experiment, run, advice)
    return run, located(experiment, run.root)


def _refuse_links_of_others(run: RunFolder) -> None:
    """Refuse links out of a run's folder that is not the user's own: commands would read and write where they lead."""
    out = {} if is_own_run(run.root) else links_out(run.root)
    expected, advice = "files of the run: you did not make it here", "if you trust it, copy it with cp -rL"
    problems = [Problem(str(path), found, expected, advice) for path, found in out.items()]
    raise_if_any(first_problems(problems), f"{run.root} leads out of itself.")


def edited_settings(run: RunFolder) -> list[Problem]:
    """Return a problem per field of a run's experiment.yaml that is not as the run was begun with.

    Raises:
        DamagedFile: the file, or data.json, cannot be read.
    """
    if (data := read_data(run)) is None and not run.experiment.exists():
        return []
    settings = read_experiment(run)
    # a command may be killed before it writes what the run is made from
    lost = set(Experiment.model_fields).difference(settings) if data is None else _lost_fields(data.settings, settings)
    if lost:
        raise DamagedFile.of(run.experiment, f"no {listed(sorted(lost))}", "every field, as it was written", ADVICE)
    if data is None:
        return []
    advice = f"write {run.experiment.name} as it was"
    problems = differing_settings(data.settings, settings, advice)
    return [replace(problem, where=f"{run.experiment}: {problem.where}") for problem in problems]


def _lost_fields(written: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the fields that a run's experiment.yaml was written with, and that it lacks: it broke off."""
    lost = [name for name in written if name not in found]
    sections = {name: (written[name], found[name]) for name in SECTIONS if name in written and name in found}
    return lost + [f"{name}.{field}" for name, (then, now) in sections.items() for field in then if field not in now]


def require_settings(run: RunFolder) -> None:
    """Refuse the folder of a run that has lost its experiment.yaml.

    Raises:
        DamagedFile: there is none, but what a run was made from, or checkpoints.
    """
    study = any((run.root / name).is_file() for name in STUDY_FILES)
    if not (study or run.experiment.exists()) and read_data(run) is not None:
        read_experiment(run)


def read_experiment(run: RunFolder) -> dict[str, Any]:
    """Return the content of a run's experiment.yaml; raises DamagedFile where it cannot be read."""
    return read_saved(run.experiment, ADVICE)


def require_unchanged(run: RunFolder, experiment: Experiment) -> None:
    """Refuse a run whose cases, split or finished folds are not those that it was begun with, or have lost metrics.

    Raises:
        ProblemsFound: naming all that differs; nothing has been written.
    """
    raise_if_any(changes_of(run, experiment), f"The run {run.root} is not what it was made from.")
    require_epochs([run])


def changes_of(run: RunFolder, experiment: Experiment) -> list[Problem]:
    """Return what differs in a run's cases, split and finished folds from what it was begun with.

    Raises:
        ProblemsFound: there is no dataset, or a record of the run cannot be read.
    """
    folds, members = range(experiment.split.folds), experiment.training.members
    return changed_data(run, experiment) + foreign_folds(run, folds, members)


def warn_of_changes(run: RunFolder, experiment: Experiment, why: str, cases: bool = True) -> None:
    """Print a warning for each thing that is not as a run was begun, where that is no reason to refuse.

    Args:
        why: says so, for example "predictions of new cases do not depend on it".
        cases: compare the cases as well, where the dataset is there.
    """
    folds, members = range(experiment.split.folds), experiment.training.members
    try:
        problems = changed_data(run, experiment) if cases and experiment.dataset.path.is_dir() else []
        problems += foreign_folds(run, folds, members) + unrecorded_folds(run, folds, members)
    except ProblemsFound as error:
        problems = error.problems
    for problem in problems:
        warn_of(problem, why)


def warn_if_changed(root: Path, why: str, cases: bool = True) -> None:
    """Print what is not as the run in a folder was begun with, or cannot be read, for commands that go on all the same.

    Args:
        why, cases: see :func:`warn_of_changes`.
    """
    try:
        run, experiment = open_existing_run(root, edited=partial(warn_of, why=why))
    except ProblemsFound as error:
        for problem in error.problems:
            warn_of(problem, why)
    else:
        warn_of_changes(run, experiment, why, cases)


def warn_of(problem: Problem, why: str) -> None:
    """Print a change as one line."""
    warn(f"warning: {problem.where}: {problem.found}; expected {problem.expected}; {why}")


def recorded_folds(experiment: Experiment, run: RunFolder) -> list[int]:
    """Return the folds of a run whose training has ended, for commands that would drop one of which that is unknown.

    Raises:
        DamagedFile: a fold has its final checkpoint, and lost its record.
    """
    if problems := unrecorded_folds(run, range(experiment.split.folds), experiment.training.members):
        raise DamagedFile(f"Folds of {run.root} have lost their record.", problems, exit_code=1)
    return finished_folds(experiment, run)


def finished_folds(experiment: Experiment, run: RunFolder) -> list[int]:
    """Return the folds of a run whose training has ended."""
    return [fold for fold in range(experiment.split.folds) if all_members_done(experiment, run, fold)]


def open_members(experiment: Experiment, prepared: PreparedFolder) -> dict[str, str]:
    """Open a run and the other members of its ensemble; record what it is made from, and return the digests of that."""
    for number in range(experiment.training.members):
        open_run(member_experiment(experiment, number))
    digests = record_data(RunFolder(experiment.run_folder), experiment, prepared).digests
    update_manifest(RunFolder(experiment.run_folder).manifest, digests=digests, versions=describe_versions())
    return digests


def refuse_other_settings(experiment: Experiment, run: RunFolder) -> None:
    """Refuse an experiment whose folder holds a run of the same name with other settings.

    Raises:
        ProblemsFound: naming every field that differs; or the run's own file was edited or damaged, which would
            otherwise be taken for a difference of the experiment.
    """
    raise_if_any(edited_settings(run), f"The settings of the run {run.root} were edited.")
    _refuse_differing(experiment, run, NEW_RUN)


def _refuse_differing(experiment: Experiment, run: RunFolder, advice: str) -> None:
    if run.experiment.exists():
        now = experiment.resolved().model_dump(mode="json")
        problems = differing_settings(read_experiment(run), now, advice)
        raise_if_any(problems, f"The run {run.root} exists with other settings.")


def differing_settings(before: Mapping[str, Any], now: Mapping[str, Any], advice: str = NEW_RUN) -> list[Problem]:
    """Return a problem per field that differs, except those of ``FREE_TO_CHANGE``.

    A list of cases is one field, and so is a task, unless both have the same name.
    """
    before, now = (short_lists(with_new_fields(settings)) for settings in (before, now))
    tasks = task_of(before), task_of(now)
    if tasks[0].name != tasks[1].name:
        before, now = short_task(before), short_task(now)
    differing = [*differences(before, now), *_moved_regions(*tasks)]
    return [
        Problem(name, str(new), f"{old}, as the run was started", advice)
        for name, old, new in differing
        if not is_within(name, FREE_TO_CHANGE) and name not in OF_PLACES
    ]


def _moved_regions(before: Task, now: Task) -> list[tuple[str, str, str]]:
    """Return regions in another order, which may be that of a network's channels, as a field that differs."""
    old, new = list(before.regions), list(now.regions)
    moved = old != new and set(old) == set(new)
    return [("dataset.task.regions", ", ".join(old), ", ".join(new))] if moved and before.name == now.name else []


def locked_folds(run: RunFolder, folds: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """Keep other commands from training the same folds of the same run within the block; see :func:`locked`."""
    locks = {f"{run.root}, fold {fold}": run.root / f".fold_{fold}.lock" for fold in folds}
    return locked("The folds are being trained already.", locks)


@contextlib.contextmanager
def locked(title: str, locks: Mapping[str, Path]) -> Iterator[None]:
    """Keep other commands from the same work within the block; the locks of a killed command are free.

    Args:
        title: of the error that names what another command is working on.
        locks: the file to lock, by the name of the work that it stands for.
    """
    problems = []
    with contextlib.ExitStack() as held:
        for what, file in locks.items():
            try:
                held.enter_context(file_lock(file, wait=False))
            except BlockingIOError:
                found, advice = "another command at work on it", "wait for it, stop it, or give another name"
                problems.append(Problem(what, found, "no other command", advice))
            except OSError:
                continue  # a file system without locks
        raise_if_any(problems, title)
        yield
