"""What is reported to Tune, the search and the scheduler, how many trials fit, when the budget is spent."""

import math
import pickle

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

from support.small_sweeps import CORR, DICE, SPACE, asha_rungs, both, small_sweep, write_trial
from uncseg.cluster.resources import Cluster, Node, plan_slots
from uncseg.config.experiment import load_experiment
from uncseg.config.sections import Resources
from uncseg.errors import ProblemsFound
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.budget import BudgetStopper, hours_trained
from uncseg.studies.sweep.run_sweep import choose_promoted, with_slots_for
from uncseg.studies.sweep.search import param_space, tune_config
from uncseg.studies.sweep.sweep_file import Budget, Constraint, Objective, Search
from uncseg.studies.sweep.train_trial import TrialSetup, mean_over_folds
from uncseg.studies.sweep.tuner import trials_at_once
from uncseg.tracking.spool import FoldHistory


def sweep_of(folds=1, **fields):
    return small_sweep(folds=tuple(range(folds)), **fields)


def test_an_epoch_is_judged_by_the_mean_over_folds():
    reports = [{"epoch": 4, DICE: 0.5, "a": 1.0}, {"epoch": 4, DICE: 0.9, "a": 4.0}]
    result = mean_over_folds(reports, sweep_of())
    assert result["epoch"] == 5  # epochs trained
    assert result[DICE] == pytest.approx(0.7)
    assert result[f"{DICE}_std"] == pytest.approx(0.2)
    assert result["a"] == 2.5


@pytest.mark.parametrize(("mode", "sign"), [("max", -1), ("min", 1)])
def test_a_fold_without_a_value_makes_the_epoch_the_worst(mode, sign):
    reports = [{"epoch": 0, DICE: 0.5, CORR: 0.1}, {"epoch": 0, DICE: 0.5, CORR: math.nan}]
    result = mean_over_folds(reports, sweep_of(objectives=(Objective(metric=DICE), Objective(metric=CORR, mode=mode))))
    assert result[DICE] == 0.5
    assert sign * result[CORR] > 1e6
    assert math.isfinite(result[CORR])  # percentiles are taken of it


@pytest.mark.parametrize(
    ("folds", "nodes", "resources", "trials"),
    [
        (2, [(16, 2), (16, 2)], {}, 2),
        (1, [(8, 4)], {}, 4),
        (3, [(32, 4), (32, 4)], {}, 2),
        (2, [(16, 8)], {"folds_at_once": 5}, 2),
    ],
)
def test_as_many_trials_run_side_by_side_as_have_room_for_their_folds(folds, nodes, resources, trials):
    cluster = Cluster(tuple(Node(*node) for node in nodes))
    slots = plan_slots(Resources(**resources), 9 * folds, cluster)
    assert trials_at_once(sweep_of(folds), slots) == trials
    assert trials_at_once(sweep_of(folds, trials_at_once=1), slots) == 1


@pytest.mark.parametrize(("folds", "resources", "found"), [(3, {}, "3 folds"), (2, {"gpus_per_fold": 2}, "2 GPUs")])
def test_folds_that_could_only_wait_for_each_other_are_refused(folds, resources, found):
    slots = plan_slots(Resources(**resources), folds, Cluster((Node(32, 2),)))
    with pytest.raises(ProblemsFound) as caught:
        trials_at_once(sweep_of(folds), slots)
    assert caught.value.problems[0].found.startswith(found)


@pytest.mark.parametrize(
    ("domain", "drawn"),
    [
        ({"uniform": [0, 1]}, lambda v: 0 <= v <= 1),
        ({"quniform": [0, 1, 0.25]}, lambda v: v in (0, 0.25, 0.5, 0.75, 1)),
        ({"loguniform": [1e-3, 1e-1]}, lambda v: 1e-3 <= v <= 1e-1),
        ({"randint": [1, 4]}, lambda v: v in (1, 2, 3)),
        ({"choice": ["a", "b"]}, lambda v: v in ("a", "b")),
    ],
)
def test_domains_are_drawn_by_tune(domain, drawn):
    (sampled,) = param_space(sweep_of(space={"loss.unc_weight": domain})).values()
    assert all(drawn(sampled.sample()) for _ in range(20))


def test_each_point_of_a_grid_is_trained_once_per_draw():
    grid = {f"loss.{name}_weight": {"grid_search": [0.1, 0.2]} for name in ("unc", "rmsd")}
    assert tune_config(sweep_of(space=grid, trials=9), 5, 1).num_samples == 1
    assert tune_config(sweep_of(space=grid | {"memory.alpha": {"uniform": [0.1, 1]}}), 5, 1).num_samples == 2


def test_no_trial_is_ended_at_its_last_epoch():
    """There it has everything but its final checkpoint."""
    scheduler = tune_config(sweep_of(scheduler={"grace_epochs": 2, "reduction_factor": 2}), 8, 1).scheduler
    assert isinstance(scheduler, AsyncHyperBandScheduler)
    assert sorted(asha_rungs(scheduler)) == [2, 4]
    assert isinstance(tune_config(sweep_of(scheduler={"type": "fifo"}), 8, 1).scheduler, FIFOScheduler)


class Searching:
    """A sweep's search on its own, without Tune's loop."""

    def __init__(self, first=None, **fields):
        fields = {"search": Search(type="tpe", random_trials=8)} | fields
        self.sweep = sweep_of(**fields, trials=99)
        self.searcher = tune_config(self.sweep, 5, 9, first).search_alg
        self.searcher.set_search_properties(None, None, param_space(self.sweep))

    def draw(self, name):
        return list(self.searcher.suggest(name).values())

    def run(self, trials, score, first=0):
        """What was drawn, (trials, fields)."""
        drawn = []
        for number in range(first, first + trials):
            drawn.append(self.draw(f"t{number}"))
            self.searcher.on_trial_complete(f"t{number}", {"training_iteration": 5, **score(*drawn[-1])})
        return np.array(drawn)


def test_tpe_draws_where_trials_were_good():
    drawn = Searching().run(40, lambda value: {DICE: -((value - 0.8) ** 2)})
    assert np.median(abs(drawn[-20:] - 0.8)) < 0.15


def test_the_first_trial_can_be_given():
    search = Searching(first={"loss.unc_weight": 0.4321})
    assert search.draw("first") == [0.4321]
    assert search.draw("second") != [0.4321]


@pytest.mark.parametrize(("constraints", "low", "high"), [((), 0.8, 1), ((0.5,), 0.4, 0.6)])
def test_tpe_keeps_to_the_constraints(constraints, low, high):
    """The best objective lies where Dice is too low."""
    known = tuple(Constraint(metric=DICE, at_least=bound) for bound in constraints)
    search = Searching(objectives=(Objective(metric=CORR),), constraints=known)
    drawn = search.run(40, lambda value: {CORR: value, DICE: 1 - value})
    assert low < np.median(drawn[-20:]) < high


def test_nsga2_finds_the_front():
    objectives = (Objective(metric=DICE), Objective(metric=CORR, mode="min"))
    space = SPACE | {"loss.rmsd_weight": {"uniform": [0, 1]}}
    search = Searching(objectives=objectives, space=space, search=Search(type="nsga2", population=10))
    # the second field has one best value, the first trades one objective for the other
    drawn = search.run(200, lambda one, two: {DICE: one - (two - 0.3) ** 2, CORR: one + (two - 0.3) ** 2})
    assert np.median(abs(drawn[-50:, 1] - 0.3)) < 0.1
    assert np.ptp(drawn[-50:, 0]) > 0.5


def test_a_search_goes_on_after_a_failed_trial():
    search = Searching()
    search.draw("failed")
    search.searcher.on_trial_complete("failed", error=True)
    assert len(search.run(3, lambda value: {DICE: value})) == 3


def test_a_search_that_is_saved_and_restored_draws_the_same(tmp_path):
    def score(value):
        return {DICE: -abs(value - 0.5)}

    whole = Searching().run(14, score)
    first = Searching()
    before = first.run(10, score)
    first.searcher.save(str(tmp_path / "search.pkl"))
    second = Searching()
    second.searcher.restore(str(tmp_path / "search.pkl"))
    np.testing.assert_array_equal([*before, *second.run(4, score, first=10)], whole)


def test_hours_of_trials_side_by_side_count_once_and_gpu_hours_each():
    minute = 60_000
    histories = []
    for attempts in ([(0, 30), (60, 90)], [(10, 40)]):
        history = FoldHistory(len(histories))
        for attempt, (begin, end) in enumerate(attempts, start=1):
            kept = {"fold": history.fold, "attempt": attempt}
            history.add({**kept, "kind": "attempt", "time_ms": begin * minute, "first_epoch": 0})
            history.add({**kept, "kind": "epoch", "time_ms": end * minute, "epoch": 0, "metrics": {}})
        histories.append(history)
    assert hours_trained(histories) == (pytest.approx(70 / 60), pytest.approx(90 / 60))


def test_a_budget_counts_what_was_spent_before():
    stopper = BudgetStopper(Budget(gpu_hours=2), hours=50, gpu_hours=1.5, gpus=2)
    assert not stopper.stop_all()
    assert not stopper("t", {"time_this_iter_s": 800})  # 0.44 GPU-hours: no trial is ended alone
    assert not stopper.stop_all()
    stopper("t", {"time_this_iter_s": 800, "done": True})  # Tune says a trial's last result again as it ends
    stopper("u", {"done": True})  # and says this much of one without results
    assert not stopper.stop_all()
    stopper("t", {"time_this_iter_s": 800})
    assert stopper.stop_all()
    assert "gpu_hours" in stopper.spent()
    assert BudgetStopper(Budget(hours=1), hours=1.1, gpu_hours=0, gpus=0).stop_all()
    pickle.dumps(stopper)  # Tune keeps it


def test_gpu_hours_without_gpus_are_refused():
    slots = plan_slots(Resources(), 1, Cluster((Node(8, 0),)))
    with pytest.raises(ProblemsFound) as caught:
        trials_at_once(sweep_of(budget=Budget(gpu_hours=1)), slots)
    assert caught.value.problems[0].where == "budget.gpu_hours"


def test_promoted_trials_have_slots_for_all_folds_that_are_left(experiment_file, tmp_path):
    """A search of one fold at a time had a slot; its two promoted trials have nine folds left."""
    base = load_experiment(experiment_file(tmp_path / "cases", split={"folds": 5}))
    cluster = Cluster((Node(96, 8),))
    sweep = sweep_of(trials_at_once=1, promote={"top": 2})
    setup = TrialSetup(sweep, base, None, SweepFolder(tmp_path), plan_slots(base.resources, 1, cluster))
    done = setup.run("a")
    done.final_checkpoint(0).parent.mkdir(parents=True)
    done.final_checkpoint(0).touch()
    (done.fold(0) / "done.json").touch()
    slots = with_slots_for(setup, ["a", "b"], cluster).slots
    assert (setup.slots.count, slots.count, slots.requested) == (1, 8, 9)


def test_only_trials_with_a_value_are_promoted(tmp_path):
    folder = SweepFolder(tmp_path)
    for name, values in {"a": [0.5], "b": [], "c": [math.nan], "d": [0.4]}.items():
        write_trial(folder.runs, name, [both(value) for value in values], states="stopped")
    setup = TrialSetup(sweep_of(promote={"top": 4}), None, None, folder, None)
    assert choose_promoted(setup) == ["a", "d"]
