"""Small sweeps, and the folders that trials leave."""

from uncseg.files import write_json
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.tracking.spool import SpoolWriter

DICE, CORR = "val_patch/dice_mean", "uncertainty/union/corr_ema/uncertainty"
SPACE = {"loss.unc_weight": {"uniform": [0, 1]}}


def small_sweep(**fields):
    return Sweep(**{"name": "s", "base": "e.yaml", "space": SPACE, "trials": 9} | fields)


def asha_rungs(scheduler):
    """What each trial had reported when it reached a rung, by the rung's epoch; a larger value is better."""
    (bracket,) = scheduler._brackets
    return dict(bracket._rungs)


def both(dice, corr=0.0):
    """An epoch's metrics."""
    return {DICE: dice, CORR: corr}


def write_trial(runs, name, *folds, states="finished", values=None):
    """Write a trial's folder.

    Args:
        runs: folder of all trials.
        folds: for each fold its epochs' metrics.
        states: how each fold ended; one text: all of them.
        values: of the fields. None: of SPACE.
    """
    write_json(runs / name / "values.json", {"loss.unc_weight": 0.5} if values is None else values)
    states = [states] * len(folds) if isinstance(states, str) else states
    for fold, (epochs, state) in enumerate(zip(folds, states, strict=True)):
        spool = SpoolWriter(runs / name / "spool", fold, first_epoch=0)
        for epoch, metrics in enumerate(epochs):
            spool.epoch(epoch, metrics)
        spool.state(state)
