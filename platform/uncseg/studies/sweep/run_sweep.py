"""A sweep from beginning to end: its trials, the best of them on more folds, tables, the best as an experiment file."""

from collections.abc import Sequence
from dataclasses import replace

from uncseg import stopping
from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import Cluster, plan_slots
from uncseg.cluster.session import ray_session
from uncseg.config.experiment import Experiment
from uncseg.console import console, counting
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.errors import DamagedFile, first_problems, raise_if_any
from uncseg.files import read_json, write_json
from uncseg.layout import RunFolder
from uncseg.ownership import make_own
from uncseg.partial_files import remove_partial
from uncseg.runs.fold_progress import FoldProgress
from uncseg.runs.fold_request import is_done
from uncseg.runs.needed_run import require_needed_run, require_same_data
from uncseg.runs.own_folds import foreign_folds
from uncseg.runs.preflight import preflight
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_data import LOST, changed_split, kept_preparation, record_data
from uncseg.runs.run_opening import changes_of, edited_settings, locked
from uncseg.runs.run_plan import estimate_disk, print_cases, print_disk, size_text
from uncseg.runs.train_folds import train_folds
from uncseg.studies.load_study import save_study
from uncseg.studies.parent_run import open_parent
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.budget import BudgetStopper, hours_trained
from uncseg.studies.sweep.failure_trial import CASES, cases_table, keep_run_decisions, train_failure_trial
from uncseg.studies.sweep.snapshots import refuse_strangers_state
from uncseg.studies.sweep.space import trial_experiment
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.sweep_results import close_sweep
from uncseg.studies.sweep.train_trial import TrialSetup, train_trial
from uncseg.studies.sweep.trial_events import TrialEvents
from uncseg.studies.sweep.trials import can_be_promoted, rank_trials, read_trials, read_values
from uncseg.studies.sweep.tuner import sweep_tuner, trials_at_once
from uncseg.table_files import write_table
from uncseg.tracking.lost_epochs import lost_epochs


def run_sweep(sweep: Sweep, base: Experiment, trust: bool = False) -> int:
    """Run a sweep that ``commands/checked_studies.py`` has checked, or go on; return 0, or 1 without a best trial.

    Prints and writes the table of trials, and writes the best trial's experiment file. With ``trust`` what the sweep's
    folder holds already, Tune's state and checkpoints, may run code of its own.
    """
    folder = SweepFolder(base.storage.path.resolve() / sweep.name)
    if not trust:
        refuse_strangers_state(folder)
    folder.outputs.require_own([folder.best.name, *folder.outputs.noted()])
    # trials look for a run that they need from their own folder
    placed, folds = trial_experiment(base, "first", folder.runs, {}), sweep.promoted_folds(base)
    require_needed_run(placed, folds)
    write_missing_phantoms(base.dataset)
    refuse_other_data(folder, sweep, base)
    with ray_session(base.resources.ray_address) as own_ray:
        cluster = connected_cluster(base.resources, own_ray)
        # the folds of all trials share the CPUs; one trial's alone would take the whole machine
        at_most = sweep.folds_in_step * (sweep.trials_at_once or sweep.trials)
        slots = preflight(base, at_most, cluster, own_ray, folder.content.exists())
        at_once = trials_at_once(sweep, slots)
        with counting() as progress:
            own = RunFolder(folder.root)
            of = RunFolder(base.run_folder) if sweep.of_failures else own
            prepared = prepare_cases(base.resolved(), progress, kept_preparation(of, base))
            raise_if_any(changed_split(of, prepared), f"The split of {of.root} changed.")
            require_same_data(placed, folds, prepared)
        print_cases(base, prepared)
        make_own(folder.root)  # before the lock is in it
        with locked("The sweep is at work already.", {str(folder.root): folder.root / ".lock"}):
            remove_partial(folder.root)
            folder.runs.mkdir(parents=True, exist_ok=True)
            save_study(folder, sweep, base)
            record_data(own, base, prepared)
            setup = TrialSetup(sweep, base.resolved(), prepared, folder, slots, trust)
            events = TrialEvents(setup, open_parent(folder, sweep, base).run_id)
            with stopping.telling_of_the_end(lambda: events.end_all(interrupted=True)):
                if not folder.promoted.is_file():
                    _screen(setup, at_once, events)
                promoted = _promote(setup, events, cluster, own_ray)
            if sweep.of_failures:
                write_table(cases_table(setup), folder.tables, CASES)
    return close_sweep(folder, sweep, base, promoted)


def refuse_other_data(folder: SweepFolder, sweep: Sweep, base: Experiment) -> None:
    """Refuse to go on with a sweep whose cases or folds are not those that its trials were begun with.

    Raises:
        ProblemsFound: naming what differs; or nothing tells what the trials were begun with.
    """
    own, trials = RunFolder(folder.root), folder.begun()
    if trials and not own.data.exists():
        raise DamagedFile.of(own.data, "nothing", "what the trials were made from", LOST)
    problems = changes_of(own, base) + (changes_of(RunFolder(base.run_folder), base) if sweep.of_failures else [])
    for run in trials:
        found = edited_settings(run) + foreign_folds(run, sweep.promoted_folds(base)) + lost_epochs(run)
        problems += [replace(problem, where=f"trial {run.root.name}, {problem.where}") for problem in found]
    raise_if_any(first_problems(problems), f"The sweep {folder.root} is not what it was made from.")


def _screen(setup: TrialSetup, at_once: int, events: TrialEvents) -> None:
    """Draw and train the trials."""
    sweep, fold = setup.sweep, setup.slots.fold
    gpus = fold.worker.gpus if sweep.of_failures else fold.gpus
    console.print(f"{sweep.name}: {sweep.trials} trials at most, {len(sweep.folds)} folds each, {at_once} side by side")
    if sweep.of_failures:
        keep_run_decisions(setup)
    else:
        _print_disk(setup)
    trials = read_trials(setup.folder.runs, sweep)
    hours, fold_hours = hours_trained(history for trial in trials for history in trial.histories)
    budget = BudgetStopper(sweep.budget, hours, fold_hours * gpus, sweep.folds_in_step * gpus)
    sweep_tuner(setup, at_once, budget, events, train_failure_trial if sweep.of_failures else train_trial).fit()
    events.end_all()
    if spent := budget.spent():
        console.print(f"{spent}; the search ends here")


def _print_disk(setup: TrialSetup) -> None:
    """Print how much of the disk the trials need, during the search and after it."""
    sweep, folds = setup.sweep, len(setup.sweep.folds)
    disk = estimate_disk(setup.base, setup.prepared)
    promoted = (sweep.promote.top if sweep.promote else 0) * len(sweep.promoted_folds(setup.base))
    # finished trials keep their checkpoints until the end of the sweep; a fold that trains has a file or two more
    trained = sweep.trials * folds + promoted
    print_disk(disk, disk.kept * trained + (disk.training - disk.kept) * folds, trained, setup.folder.root)
    after = f"all {sweep.trials} trials"
    if sweep.keep_checkpoints == "best":
        after = "the best trial" + ", the front's" * (len(sweep.objectives) > 1) + ", the promoted" * bool(promoted)
    text = f"kept:     checkpoints of {after}, {size_text(disk.kept)} per fold; MLflow stores none"
    console.print(text, soft_wrap=True)


def choose_promoted(setup: TrialSetup) -> list[str]:
    """Return the names of the best trials of the screening, chosen once; none where nothing is promoted.

    Trials that failed, have no value of the first objective, or violate a constraint are not chosen.
    """
    sweep, file = setup.sweep, setup.folder.promoted
    if sweep.promote is None:
        return []
    if not file.is_file():  # chosen once: a promoted trial that goes on changes the order
        table = rank_trials(read_trials(setup.folder.runs, sweep), sweep)
        able = can_be_promoted(table, sweep)
        write_json(file, {"trials": table["trial"][able].head(sweep.promote.top).tolist()})
    advice = f"delete {file}: the same command chooses again"
    return list(read_json(file, advice, dict[str, list[str]], keys=["trials"])["trials"])


def with_slots_for(setup: TrialSetup, names: Sequence[str], cluster: Cluster) -> TrialSetup:
    """Return the setup with slots for what the promoted trials still have to train: more folds than the search had."""
    folds = setup.sweep.promoted_folds(setup.base)
    left = sum(not is_done(setup.run(name), fold) for name in names for fold in folds)
    return replace(setup, slots=plan_slots(setup.base.resources, max(left, 1), cluster))


def _promote(setup: TrialSetup, events: TrialEvents, cluster: Cluster, own_ray: bool) -> list[str]:
    """Train all folds of the best trials side by side, from their last checkpoints, and return their names."""
    names, folds = choose_promoted(setup), setup.sweep.promoted_folds(setup.base)
    if not names:
        return names
    setup = with_slots_for(setup, names, cluster)
    progress, requests = [], []
    for name in names:
        run = setup.run(name)
        values = read_values(run.root)
        events.begin(name, values, folds)
        progress.append(FoldProgress(run, folds, setup.base.training.epochs, f"trial {name} "))
        requests += setup.requests(name, values, folds)

    def show() -> None:
        for run_progress in progress:
            run_progress()

    console.print(f"promoted to folds {', '.join(map(str, folds))}: {', '.join(names)}")
    train_folds(requests, setup.slots, show, own_ray)  # the spools say how the folds ended
    events.end_all()
    return names
