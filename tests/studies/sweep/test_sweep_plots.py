"""The figures of a sweep show what they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as mpl_image
from matplotlib.colors import to_rgb

from support.small_sweeps import CORR, DICE, small_sweep
from uncseg.studies.sweep.sweep_file import Constraint, Objective
from uncseg.studies.sweep.sweep_plots import BOUND, FRONT, draw_sweep

REPORTED = pd.DataFrame(
    [
        {"trial": trial, "epoch": epoch, DICE: epoch / 10 + shift, CORR: -1e9 if epoch == 1 else 0.3}
        for trial, shift, last in (("a", 0.1, 4), ("b", 0.2, 4), ("c", 0.0, 2))
        for epoch in range(1, last)
    ]
)


def table(**columns):
    states = {"trial": ["a", "b", "c"], "state": ["finished", "finished", "stopped"]}
    return pd.DataFrame(states | {DICE: [0.7, 0.8, 0.9], CORR: [0.5, 0.4, np.nan]} | columns)


def coloured(path, colour):
    """Pixels of a colour."""
    pixels = mpl_image.imread(path)[..., :3]
    return int((np.abs(pixels - to_rgb(colour)).max(-1) < 0.02).sum())


def test_the_front_and_the_bound_have_colours_of_their_own(tmp_path):
    constraint = Constraint(metric=DICE, at_least=0.75)
    sweep = small_sweep(objectives=(Objective(metric=CORR), Objective(metric=DICE)), constraints=(constraint,))
    draw_sweep(tmp_path, table(front=[True, True, False]), REPORTED, sweep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objective.png", "pareto.png"]
    assert coloured(tmp_path / "pareto.png", FRONT) > 50
    assert coloured(tmp_path / "pareto.png", BOUND) > 50
    assert coloured(tmp_path / "objective.png", FRONT) > 50


def test_a_sweep_of_one_objective_has_no_figure_of_the_front(tmp_path):
    draw_sweep(tmp_path, table(), REPORTED, small_sweep())
    assert [path.name for path in tmp_path.iterdir()] == ["objective.png"]


@pytest.mark.filterwarnings("error")
def test_a_sweep_without_a_finished_trial_is_drawn(tmp_path):
    nothing = table(state=["stopped", "failed", "failed"], front=[False] * 3)
    sweep = small_sweep(objectives=(Objective(metric=CORR), Objective(metric=DICE)))
    draw_sweep(tmp_path, nothing.assign(**{DICE: np.nan}), REPORTED[:0], sweep)
    assert [path.name for path in tmp_path.iterdir()] == ["pareto.png"]
