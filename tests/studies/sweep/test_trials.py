"""The table of trials, the Pareto front and importances, from the folders that trials leave."""

import math

import numpy as np
import pytest

from support.small_sweeps import CORR, DICE, both, small_sweep, write_trial
from uncseg.studies.sweep.importances import importances
from uncseg.studies.sweep.sweep_file import BaselineConstraint, Constraint, Objective
from uncseg.studies.sweep.trials import Trial, pareto_front, rank_trials, read_trials, reported_table

TWO_FIELDS = {"loss.unc_weight": {"uniform": [0, 1]}, "loss.corr_weight": {"loguniform": [0.1, 10]}}


def sweep_of(**fields):
    return small_sweep(folds=(0, 1), **fields)


def test_a_trial_is_judged_by_the_mean_of_its_folds_last_common_epoch(tmp_path):
    ahead, behind = [both(0.1), both(0.4), both(0.9)], [both(0.2), both(0.6)]
    write_trial(tmp_path, "a", ahead, behind, states="stopped")
    (trial,) = read_trials(tmp_path, sweep_of())
    assert (trial.state, trial.epochs) == ("stopped", 2)
    assert trial.mean(DICE, 1) == (pytest.approx(0.5), pytest.approx(0.1))
    table = rank_trials([trial], sweep_of())
    assert table.loc[0, DICE] == pytest.approx(0.5)
    assert table.loc[0, f"{DICE}_std"] == pytest.approx(0.1)


def test_a_fold_without_a_value_leaves_the_trial_without(tmp_path):
    write_trial(tmp_path, "a", [both(0.5, math.nan)], [both(0.5, 0.2)])
    assert math.isnan(read_trials(tmp_path, sweep_of())[0].mean(CORR, 0)[0])


@pytest.mark.parametrize(("mode", "order"), [("max", "bacd"), ("min", "abcd")])
def test_only_whole_trials_can_be_the_best(tmp_path, mode, order):
    ends = {"a": ("finished", 0.4), "b": ("finished", 0.6), "c": ("stopped", 0.9), "d": ("failed", 1)}
    for name, (state, value) in ends.items():
        write_trial(tmp_path, name, [both(value)], [both(value)], states=state)
    sweep = sweep_of(objectives=(Objective(metric=DICE, mode=mode),))
    assert "".join(rank_trials(read_trials(tmp_path, sweep), sweep)["trial"]) == order


def test_constraints_come_before_objectives(tmp_path):
    for name, dice, corr in (("a", 0.80, 0.5), ("b", 0.70, 0.9), ("c", 0.81, 0.4)):
        write_trial(tmp_path, name, [both(dice, corr)], [both(dice, corr)])
    sweep = sweep_of(objectives=(Objective(metric=CORR),), constraints=(Constraint(metric=DICE, at_least=0.79),))
    table = rank_trials(read_trials(tmp_path, sweep), sweep)
    assert "".join(table["trial"]) == "acb"
    assert table["feasible"].tolist() == [True, True, False]


def test_a_promoted_trial_is_judged_by_all_its_folds(tmp_path):
    write_trial(tmp_path, "a", [both(0.9)], [both(0.9)], [both(0.3)])
    write_trial(tmp_path, "b", [both(0.8)], [both(0.8)], [both(0.8)])
    write_trial(tmp_path, "c", [both(0.95)], [both(0.95)])
    sweep = sweep_of()
    table = rank_trials(read_trials(tmp_path, sweep), sweep, [Trial.read(tmp_path / name, (0, 1, 2)) for name in "ab"])
    assert "".join(table["trial"]) == "bac"
    assert table["folds"].tolist() == [3, 3, 2]
    assert table.loc[1, DICE] == pytest.approx(0.7)


def test_a_promoted_trial_has_a_bound_of_its_own(tmp_path):
    """The third fold is a difficult one, for the baseline as well."""
    write_trial(tmp_path, "a", [both(0.9)], [both(0.9)], [both(0.5)])
    write_trial(tmp_path, "b", [both(0.85)], [both(0.85)])
    write_trial(tmp_path, "c", [both(0.75)], [both(0.75)])
    sweep = sweep_of(constraints=(BaselineConstraint(metric=DICE, at_least=0.8, promoted_at_least=0.7),))
    table = rank_trials(read_trials(tmp_path, sweep), sweep, [Trial.read(tmp_path / "a", (0, 1, 2))])
    assert dict(zip(table["trial"], table["feasible"], strict=True)) == {"a": True, "b": True, "c": False}


def test_a_promoted_trial_that_failed_hides_no_good_one(tmp_path):
    sweep = sweep_of(objectives=(Objective(metric=DICE), Objective(metric=CORR)))
    for name, state, dice, folds in (("a", "failed", 0.9, 3), ("b", "finished", 0.8, 3), ("c", "finished", 0.85, 2)):
        write_trial(tmp_path, name, *[[both(dice, 0.1)]] * folds, states=state)
    for promoted, order, front in (("ab", "bca", "b"), ("a", "cba", "c")):
        further = [Trial.read(tmp_path / name, (0, 1, 2)) for name in promoted]
        table = rank_trials(read_trials(tmp_path, sweep), sweep, further)
        assert "".join(table["trial"]) == order
        assert "".join(table["trial"][table["front"]]) == front


def test_a_promoted_fold_that_never_began_counts_as_stopped(tmp_path):
    write_trial(tmp_path, "a", [both(0.5)], [both(0.5)])
    promoted = Trial.read(tmp_path / "a", (0, 1, 2))
    assert (promoted.state, promoted.epochs) == ("stopped", 0)


@pytest.mark.parametrize("modes", [("max", "max"), ("min", "max"), ("min", "min")])
def test_the_front_holds_the_points_that_no_other_beats(modes):
    random = np.random.default_rng(0)
    values = random.integers(0, 8, (60, 2)) / 7  # ties as well
    judged = random.random(60) < 0.8
    front = pareto_front(values, judged, [Objective(metric=DICE, mode=mode) for mode in modes])

    def beats(one, other):  # the definition, point by point
        gains = [(a - b) * (1 if mode == "max" else -1) for a, b, mode in zip(one, other, modes, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    for number, point in enumerate(values):
        beaten = any(beats(values[other], point) for other in np.flatnonzero(judged))
        assert front[number] == (judged[number] and not beaten)


def test_the_field_that_explains_the_scores_has_the_largest_importance(tmp_path):
    random, sweep = np.random.default_rng(1), sweep_of(space=TWO_FIELDS)
    for number in range(20):
        unc, corr = random.random(), 10 ** random.uniform(-1, 1)
        epochs = [both(1 - (unc - 0.3) ** 2 + 0.01 * math.log10(corr))]
        values = dict(zip(TWO_FIELDS, (unc, corr), strict=True))
        write_trial(tmp_path, f"t{number:02d}", epochs, epochs, values=values)
    table = importances(read_trials(tmp_path, sweep), sweep)
    assert table["field"].tolist() == list(TWO_FIELDS)
    assert table["importance"].iloc[0] > 0.8
    assert table["importance"].sum() == pytest.approx(1)
    assert (table["trials"] == 20).all()


def test_importances_are_compared_at_an_epoch_that_all_reached(tmp_path):
    sweep = sweep_of(space=TWO_FIELDS)
    for number in range(4):
        rising = [both(number / 10), both(0.5), both(0.5)]
        values = dict(zip(TWO_FIELDS, (number / 10, 1), strict=True))
        write_trial(tmp_path, f"t{number}", rising[: number + 1], rising, states="stopped", values=values)
    table = importances(read_trials(tmp_path, sweep), sweep)
    assert (table["epoch"] == 1).all()
    assert table.set_index("field").loc["loss.unc_weight", "importance"] == pytest.approx(1)
    few = importances(read_trials(tmp_path, sweep)[:3], sweep)
    assert few["importance"].isna().all()


def importances_of(folder, space, columns, scores):
    """Importances of finished trials.

    Args:
        columns: for each field its values, one per trial.
        scores: one per trial.
    """
    sweep = sweep_of(space=space)
    for number, score in enumerate(scores):
        values = {field: listed[number] for field, listed in columns.items()}
        write_trial(folder, f"t{number}", [both(score)], [both(score)], values=values)
    return importances(read_trials(folder, sweep), sweep).set_index("field")["importance"]


@pytest.mark.parametrize("survived", [[0.01] * 4, [[0.2, 1, 0.2, 1]] * 4])
def test_fields_that_kept_one_value_explain_nothing(tmp_path, survived):
    """The other value of the list cannot be trained."""
    found = importances_of(tmp_path, {"f": {"choice": [survived[0], 1e300]}}, {"f": survived}, [0.1, 0.2, 0.3, 0.4])
    assert found.isna().all()


def test_a_value_that_never_survived_takes_no_share_from_the_others(tmp_path):
    space = {"f": {"choice": [0.01, 0.02, 1e300]}, "g": {"uniform": [0, 1]}}
    f, g = [0.01, 0.02] * 5, [number / 10 for number in range(10)]
    scores = [10 * a + 0.01 * b for a, b in zip(f, g, strict=True)]
    assert importances_of(tmp_path, space, {"f": f, "g": g}, scores)["f"] > 0.9


def test_a_value_written_in_another_way_than_it_is_listed_is_the_same_choice(tmp_path):
    space = {"f": {"choice": [[0.2, 1, 0.2, 1], [1, 1, 1, 1]]}}
    columns = {"f": [[0.2, 1.0, 0.2, 1.0], [1, 1, 1, 1]] * 4}
    assert importances_of(tmp_path, space, columns, [0.1, 0.2] * 4).tolist() == [pytest.approx(1)]


def test_importances_are_unknown_where_the_forest_has_no_split(tmp_path):
    """The field's two values lie too close for a tree, which computes in single precision."""
    columns = {"f": [0.5, 0.5 + 1e-12] * 4}
    assert importances_of(tmp_path, {"f": {"uniform": [0, 1]}}, columns, [0.1, 0.2, 0.3, 0.4] * 2).isna().all()


def test_an_epoch_that_is_reported_again_after_a_kill_counts_once(tmp_path):
    (tmp_path / "a").mkdir()
    lines = ['{"epoch": 1, "m": 0.1}', '{"epoch": 2, "m": 0.2}', '{"epo', '{"epoch": 2, "m": 0.3}']
    (tmp_path / "a/reported.jsonl").write_text("\n" + "\n".join(lines), encoding="utf-8")
    assert reported_table(tmp_path).to_dict("records") == [
        {"trial": "a", "epoch": 1, "m": 0.1},
        {"trial": "a", "epoch": 2, "m": 0.3},
    ]
