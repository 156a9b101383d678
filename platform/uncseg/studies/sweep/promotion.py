"""Promotion: the best trials of a sweep go on to more folds, with all that they have trained."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from uncseg.cluster.nodes import Cluster
from uncseg.cluster.resources import plan_slots
from uncseg.files import read_json, write_json
from uncseg.runs.fold_task import is_done
from uncseg.runs.train_folds import train_folds
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trials import VALUES, can_be_promoted, rank_trials, read_trials


def choose_promoted(setup: TrialSetup, folder: SweepFolder) -> list[str]:
    """Names of the best trials of the screening, chosen once; none where nothing is promoted.

    Trials that failed, have no value to be judged by, or miss a constraint, are not among them.
    """
    if setup.sweep.promote is None:
        return []
    if not folder.promoted.is_file():  # a promoted trial that goes on would change the order
        trials = read_trials(folder.runs, setup.sweep)
        table = rank_trials(trials, setup.sweep)
        able = can_be_promoted(table, setup.sweep)
        write_json(folder.promoted, {"trials": table["trial"][able].head(setup.sweep.promote.top).tolist()})
    return list(read_json(folder.promoted)["trials"])


def with_slots_for(setup: TrialSetup, names: Sequence[str], cluster: Cluster) -> TrialSetup:
    """The same, with slots for what the promoted trials have left to train: other folds than those of the search.

    Args:
        setup: with the slots of the search.
        names: of the promoted trials.
        cluster: on which both are placed.
    """
    folds = setup.sweep.promoted_folds(setup.base)
    left = sum(not is_done(setup.run(name), fold) for name in names for fold in folds)
    return replace(setup, slots=plan_slots(setup.base.resources, max(left, 1), cluster))


def train_promoted(
    setup: TrialSetup, names: Sequence[str], show: Callable[[], None] = lambda: None, own_ray: bool = True
) -> None:
    """Train all folds of the promoted trials from wherever they stand, side by side; their spools say how they end."""
    folds = setup.sweep.promoted_folds(setup.base)
    tasks = [task for name in names for task in setup.tasks(name, read_json(setup.run(name).root / VALUES), folds)]
    train_folds(tasks, setup.slots, show, own_ray)
