"""The figures of a sweep show what they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as mpl_image
from matplotlib.colors import to_rgb

from uncseg.studies.sweep.sweep_file import Constraint, Objective, Sweep
from uncseg.studies.sweep.sweep_plots import BOUND, FRONT, draw_sweep

DICE, CORR = "val_patch/dice_mean", "uncertainty/union/corr_ema/uncertainty"
REPORTED_FILE = pd.DataFrame(
    [
        {"trial": trial, "epoch": epoch, DICE: epoch / 10 + shift, CORR: -1e9 if epoch == 1 else 0.3}
        for trial, shift, last in (("a", 0.1, 4), ("b", 0.2, 4), ("c", 0.0, 2))
        for epoch in range(1, last)
    ]
)


def table(**columns):
    states = {"trial": ["a", "b", "c"], "state": ["finished", "finished", "stopped"]}
    return pd.DataFrame(states | {DICE: [0.7, 0.8, 0.9], CORR: [0.5, 0.4, np.nan]} | columns)


def sweep_of(*objectives, **fields):
    space = {"loss.unc_weight": {"uniform": [0, 1]}}
    return Sweep(name="s", base="e.yaml", space=space, objectives=objectives, **fields)


def coloured(path, colour):
    """Pixels of a colour."""
    pixels = mpl_image.imread(path)[..., :3]
    return int((np.abs(pixels - to_rgb(colour)).max(-1) < 0.02).sum())


def test_the_front_and_the_bound_can_be_told_apart(tmp_path):
    constraint = Constraint(metric=DICE, at_least=0.75)
    sweep = sweep_of(Objective(metric=CORR), Objective(metric=DICE), constraints=(constraint,))
    draw_sweep(tmp_path, table(front=[True, True, False]), REPORTED_FILE, sweep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objective.png", "pareto.png"]
    assert coloured(tmp_path / "pareto.png", FRONT) > 50
    assert coloured(tmp_path / "pareto.png", BOUND) > 50
    assert coloured(tmp_path / "objective.png", FRONT) > 50


def test_one_objective_has_no_front(tmp_path):
    draw_sweep(tmp_path, table(), REPORTED_FILE, sweep_of(Objective(metric=DICE)))
    assert [path.name for path in tmp_path.iterdir()] == ["objective.png"]


@pytest.mark.filterwarnings("error")
def test_a_sweep_of_which_nothing_was_finished(tmp_path):
    nothing = table(state=["stopped", "failed", "failed"], front=[False] * 3)
    sweep = sweep_of(Objective(metric=CORR), Objective(metric=DICE))
    draw_sweep(tmp_path, nothing.assign(**{DICE: np.nan}), REPORTED_FILE[:0], sweep)
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.png"]
