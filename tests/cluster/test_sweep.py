"""What Tune hears of a trial, how trials are placed and ranked."""

import math

import pytest

from uncseg.cluster.nodes import Cluster, Node
from uncseg.cluster.resources import plan_slots
from uncseg.cluster.sweep import rank_trials, trials_at_once
from uncseg.cluster.trial import mean_over_folds
from uncseg.config import Resources
from uncseg.errors import ProblemsFound
from uncseg.sweep_file import Objective, Sweep


def test_an_epoch_is_judged_by_the_mean_over_folds():
    reports = [{"epoch": 4, "val_patch/dice_mean": 0.5, "a": 1.0}, {"epoch": 4, "val_patch/dice_mean": 0.9, "a": 4.0}]
    result = mean_over_folds(reports, Objective())
    assert result["epoch"] == 5  # epochs trained
    assert result["val_patch/dice_mean"] == pytest.approx(0.7)
    assert result["val_patch/dice_mean_std"] == pytest.approx(0.2)
    assert result["a"] == 2.5


@pytest.mark.parametrize(("mode", "worst"), [("max", -math.inf), ("min", math.inf)])
def test_a_fold_without_a_value_makes_the_epoch_the_worst(mode, worst):
    reports = [{"epoch": 0, "val_patch/dice_mean": 0.5}, {"epoch": 0, "val_patch/dice_mean": math.nan}]
    assert mean_over_folds(reports, Objective(mode=mode))["val_patch/dice_mean"] == worst


@pytest.mark.parametrize(
    ("folds", "nodes", "trials"), [(2, [(16, 2), (16, 2)], 2), (1, [(8, 4)], 4), (3, [(32, 4), (32, 4)], 2)]
)
def test_trials_side_by_side(folds, nodes, trials):
    cluster = Cluster(tuple(Node(*node) for node in nodes))
    slots = plan_slots(Resources(), 8 * folds, cluster)
    assert trials_at_once(sweep_of(folds), slots, cluster) == trials


def test_folds_that_could_only_wait_for_each_other_are_refused():
    cluster = Cluster((Node(32, 2),))
    with pytest.raises(ProblemsFound, match="at most 2"):
        trials_at_once(sweep_of(3), plan_slots(Resources(), 3, cluster), cluster)


def sweep_of(folds):
    return Sweep(name="s", base="e.yaml", space={"loss.unc_weight": {"uniform": [0, 1]}}, folds=tuple(range(folds)))


@pytest.mark.parametrize(("mode", "order"), [("max", "bacd"), ("min", "abcd")])
def test_only_whole_trials_can_be_the_best(mode, order):
    rows = [
        {"trial": "a", "state": "finished", "objective": 0.4},
        {"trial": "b", "state": "finished", "objective": 0.6},
        {"trial": "c", "state": "stopped", "objective": 0.9 if mode == "max" else 0.1},
        {"trial": "d", "state": "failed", "objective": math.nan},
    ]
    assert "".join(rank_trials(rows, Objective(mode=mode))["trial"]) == order
