"""``uncseg sweep``: trials of an experiment, the best of them on more folds, tables, the best as an experiment file."""

from typing import Any

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.nodes import Cluster
from uncseg.cluster.session import exit_without_waiting, ray_session, terminated_like_ctrl_c
from uncseg.config.experiment import Experiment
from uncseg.console import console, counting
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json, write_json
from uncseg.layout import RunFolder, SweepFolder
from uncseg.runs.fold_progress import FoldProgress
from uncseg.runs.judged_run import require_judged_run, require_same_data
from uncseg.runs.preflight import preflight
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_opening import differing_settings, locked
from uncseg.studies.sweep.budget import BudgetStopper, hours_trained
from uncseg.studies.sweep.promotion import choose_promoted, train_promoted, with_slots_for
from uncseg.studies.sweep.space import trial_experiment
from uncseg.studies.sweep.sweep_disk import print_sweep_disk
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.sweep_mlflow import open_sweep_run
from uncseg.studies.sweep.sweep_results import close_sweep
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trial_events import TrialEvents
from uncseg.studies.sweep.trials import VALUES, read_trials
from uncseg.studies.sweep.tuner import require_gpus, run_sweep, trials_at_once

KEPT = "keep_checkpoints"


def sweep_experiment(sweep: Sweep, base: Experiment) -> int:
    """Run a sweep, or go on with it; print and write the table of trials, and the best one's experiment file.

    Returns:
        0, or 1 where there is no best trial.
    """
    folder = SweepFolder(base.storage.path.resolve() / sweep.name)
    refuse_another(folder, sweep, base)
    # an error network's trials look for its run from where they will lie
    placed, folds = trial_experiment(base, "first", folder.trials, {}), sweep.promoted_folds(base)
    require_judged_run(placed, folds)
    write_missing_phantoms(base.dataset)
    with ray_session(base.resources.ray_address) as own_ray, terminated_like_ctrl_c():
        cluster = connected_cluster(base.resources, own_ray)
        # CPUs are shared among the folds of all trials, or one trial would take the whole machine
        at_most = len(sweep.folds) * (sweep.trials_at_once or sweep.trials)
        slots = preflight(base, at_most, cluster, own_ray, folder.content.exists())
        require_gpus(sweep, slots)
        at_once = trials_at_once(sweep, slots)
        with counting() as progress:
            prepared = prepare_cases(base.resolved(), progress=progress)
            require_same_data(placed, folds, prepared)
        with locked("The sweep is at work already.", {str(folder.root): folder.root / ".lock"}):
            folder.trials.mkdir(parents=True, exist_ok=True)
            sweep = record_sweep(folder, sweep, base)
            setup = TrialSetup(sweep, base.resolved(), prepared, folder.trials, slots)
            events = TrialEvents(setup, open_sweep_run(folder, sweep, base))
            try:
                _screen(setup, folder, at_once, events)
                promoted = _promote(setup, folder, events, cluster, own_ray)
            except KeyboardInterrupt:
                events.end_all(interrupted=True)
                console.print("stopped; the same command goes on with the same trials")
                exit_without_waiting()
    return close_sweep(folder, sweep, base, promoted)


def _screen(setup: TrialSetup, folder: SweepFolder, at_once: int, events: TrialEvents) -> None:
    """Draw and train the trials."""
    sweep = setup.sweep
    if folder.promoted.is_file():
        return
    console.print(f"{sweep.name}: {sweep.trials} trials at most, {len(sweep.folds)} folds each, {at_once} side by side")
    print_sweep_disk(sweep, setup.base, setup.prepared, folder.root)
    before = [history for trial in read_trials(folder.trials, sweep) for history in trial.histories]
    hours, of_folds = hours_trained(before)
    gpus = setup.slots.fold.gpus
    budget = BudgetStopper(sweep.budget, hours, of_folds * gpus, len(sweep.folds) * gpus)
    run_sweep(setup, folder.root, at_once, budget, [events])
    events.end_all()
    spent = budget.spent()
    if spent is not None:
        console.print(f"{spent}; the search ends here")


def _promote(setup: TrialSetup, folder: SweepFolder, events: TrialEvents, cluster: Cluster, own_ray: bool) -> list[str]:
    """Train the best trials on more folds; their names."""
    names = choose_promoted(setup, folder)
    folds = setup.sweep.promoted_folds(setup.base)
    shown: list[FoldProgress] = []
    for name in names:
        run = setup.run(name)
        events.begin(name, read_json(run.root / VALUES), folds)
        shown.append(FoldProgress(run, folds, setup.base.training.epochs, f"trial {name} "))
    if names:
        console.print(f"promoted to folds {', '.join(map(str, folds))}: {', '.join(names)}")
        train_promoted(with_slots_for(setup, names, cluster), names, lambda: _show(shown), own_ray)
        events.end_all()
    return names


def _show(shown: list[FoldProgress]) -> None:
    for progress in shown:
        progress()


def record_sweep(folder: SweepFolder, sweep: Sweep, base: Experiment) -> Sweep:
    """Write what is searched and from where, and return the sweep, which keeps all checkpoints where it ever said so.

    A sweep that says nothing was begun when all were kept: the same command must not remove them.
    """
    before = read_json(folder.content)["sweep"].get(KEPT, "all") if folder.content.is_file() else sweep.keep_checkpoints
    sweep = sweep if before == "best" else sweep.model_copy(update={KEPT: "all"})
    content = _content(sweep, base)
    write_json(folder.content, content | {"sweep": content["sweep"] | {KEPT: sweep.keep_checkpoints}})
    return sweep


def _content(sweep: Sweep, base: Experiment) -> dict[str, Any]:
    """What is searched and from where; how many trials are trained side by side, and kept, changes neither."""
    experiment = base.resolved().model_dump(mode="json")
    return {"sweep": sweep.model_dump(mode="json", exclude={"base", "trials_at_once", KEPT}), "experiment": experiment}


def refuse_another(folder: SweepFolder, sweep: Sweep, base: Experiment) -> None:
    """Trials of other settings in the same table would be compared with these."""
    if RunFolder(folder.root).experiment.is_file():
        problem = Problem(str(folder.root), "a run of this name", "a folder for the sweep", "write another name")
        raise ProblemsFound("The sweep has no place.", [problem])
    if folder.content.is_file():
        before, now = read_json(folder.content), _content(sweep, base)
        before["sweep"].pop(KEPT, None)
        problems = [p for part in now for p in differing_settings(before.get(part), now[part])]
        if problems:
            raise ProblemsFound(f"The sweep {folder.root} exists with other settings.", problems)
