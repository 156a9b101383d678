"""Promotion: the best trials of a sweep go on to more folds, with all that they have trained."""

from collections.abc import Callable, Sequence

from uncseg.cluster.cross_validation import train_folds
from uncseg.cluster.trial import TrialSetup
from uncseg.files import read_json, write_json
from uncseg.layout import SweepFolder
from uncseg.sweeps.results import VALUES, rank_trials, read_trials


def choose_promoted(setup: TrialSetup, folder: SweepFolder) -> list[str]:
    """Names of the best trials of the screening, chosen once; none where nothing is promoted.

    Trials that failed, or miss a constraint, are not among them.
    """
    if setup.sweep.promote is None:
        return []
    if not folder.promoted.is_file():  # a promoted trial that goes on would change the order
        trials = read_trials(folder.trials, setup.sweep)
        table = rank_trials(trials, setup.sweep)
        able = table["state"] != "failed"
        if setup.sweep.constraints:
            able &= table["feasible"]
        write_json(folder.promoted, {"trials": table["trial"][able].head(setup.sweep.promote.top).tolist()})
    return list(read_json(folder.promoted)["trials"])


def train_promoted(
    setup: TrialSetup, names: Sequence[str], show: Callable[[], None] = lambda: None, own_ray: bool = True
) -> dict[str, str]:
    """Train all folds of the promoted trials from wherever they stand, side by side.

    Returns:
        For each trial that failed, what happened.
    """
    folds = setup.sweep.promoted_folds(setup.base)
    tasks = [task for name in names for task in setup.tasks(name, read_json(setup.run(name).root / VALUES), folds)]
    failed: dict[str, str] = {}
    for task, message in train_folds(tasks, setup.slots, show, own_ray):
        before = failed.get(task.run.root.name)
        failed[task.run.root.name] = "; ".join(filter(None, [before, f"fold {task.fold}: {message}"]))
    return failed
