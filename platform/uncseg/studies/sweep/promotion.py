"""Promotion: the best trials of a sweep go on to more folds, and keep what they have trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from uncseg.cluster.resources import Cluster, plan_slots
from uncseg.files import read_json, write_json
from uncseg.runs.fold_task import is_done
from uncseg.runs.train_folds import train_folds
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trials import VALUES, can_be_promoted, rank_trials, read_trials


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
    return list(read_json(file)["trials"])


def with_slots_for(setup: TrialSetup, names: Sequence[str], cluster: Cluster) -> TrialSetup:
    """Return the setup with slots for what the promoted trials still have to train: more folds than the search had.

    Args:
        setup: with the slots of the search.
        names: names of the promoted trials.
        cluster: the cluster on which they are trained.
    """
    folds = setup.sweep.promoted_folds(setup.base)
    left = sum(not is_done(setup.run(name), fold) for name in names for fold in folds)
    return replace(setup, slots=plan_slots(setup.base.resources, max(left, 1), cluster))


def train_promoted(setup: TrialSetup, names: Sequence[str], show: Callable[[], None], own_ray: bool) -> None:
    """Train all folds of the promoted trials side by side, from their last checkpoints; their spools say the end."""
    folds = setup.sweep.promoted_folds(setup.base)
    tasks = [task for name in names for task in setup.tasks(name, read_json(setup.run(name).root / VALUES), folds)]
    train_folds(tasks, setup.slots, show, own_ray)
