"""What trials amount to, told from the folders that they leave."""

import math
from pathlib import Path

import numpy as np
import pytest

from uncseg.files import write_json
from uncseg.studies.sweep.importances import importances
from uncseg.studies.sweep.sweep_file import BaselineConstraint, Constraint, Objective, Sweep
from uncseg.studies.sweep.trials import Trial, pareto_front, rank_trials, read_promoted, read_trials, reported_table
from uncseg.tracking.spool import SpoolWriter

DICE, CORR = "val_patch/dice_mean", "uncertainty/union/corr_ema/uncertainty"


def sweep_of(**fields):
    space = {"loss.unc_weight": {"uniform": [0, 1]}, "loss.corr_weight": {"loguniform": [0.1, 10]}}
    return Sweep(**{"name": "s", "base": "e.yaml", "space": space, "folds": (0, 1), "trials": 20} | fields)


def write_trial(folder: Path, name, state="finished", values=(0.5, 1.0), **folds):
    """Folds: for each its epochs' metrics."""
    write_json(folder / name / "values.json", dict(zip(("loss.unc_weight", "loss.corr_weight"), values, strict=True)))
    for fold, epochs in folds.items():
        spool = SpoolWriter(folder / name / "spool", int(fold[1:]), first_epoch=0)
        for epoch, metrics in enumerate(epochs):
            spool.epoch(epoch, metrics)
        if state != "stopped":
            spool.state(state)


def both(dice, corr):
    return {DICE: dice, CORR: corr}


def test_a_trial_is_judged_by_the_mean_of_its_folds_last_common_epoch(tmp_path):
    ahead, behind = [both(0.1, 0), both(0.4, 0), both(0.9, 0)], [both(0.2, 0), both(0.6, 0)]
    write_trial(tmp_path, "a", "stopped", f0=ahead, f1=behind)
    (trial,) = read_trials(tmp_path, sweep_of())
    assert (trial.state, trial.epochs) == ("stopped", 2)
    assert trial.mean(DICE, 1) == (pytest.approx(0.5), pytest.approx(0.1))
    table = rank_trials([trial], sweep_of())
    assert table.loc[0, DICE] == pytest.approx(0.5)
    assert table.loc[0, f"{DICE}_std"] == pytest.approx(0.1)


def test_a_fold_without_a_value_leaves_the_trial_without(tmp_path):
    write_trial(tmp_path, "a", f0=[both(0.5, math.nan)], f1=[both(0.5, 0.2)])
    assert math.isnan(read_trials(tmp_path, sweep_of())[0].mean(CORR, 0)[0])


@pytest.mark.parametrize(("mode", "order"), [("max", "bacd"), ("min", "abcd")])
def test_only_whole_trials_can_be_the_best(tmp_path, mode, order):
    ends = {"a": ("finished", 0.4), "b": ("finished", 0.6), "c": ("stopped", 0.9), "d": ("failed", 1)}
    for name, (state, value) in ends.items():
        write_trial(tmp_path, name, state, f0=[both(value, 0)], f1=[both(value, 0)])
    sweep = sweep_of(objectives=(Objective(metric=DICE, mode=mode),))
    assert "".join(rank_trials(read_trials(tmp_path, sweep), sweep)["trial"]) == order


def test_constraints_come_before_objectives(tmp_path):
    for name, dice, corr in (("a", 0.80, 0.5), ("b", 0.70, 0.9), ("c", 0.81, 0.4)):
        write_trial(tmp_path, name, f0=[both(dice, corr)], f1=[both(dice, corr)])
    sweep = sweep_of(objectives=(Objective(metric=CORR),), constraints=(Constraint(metric=DICE, at_least=0.79),))
    table = rank_trials(read_trials(tmp_path, sweep), sweep)
    assert "".join(table["trial"]) == "acb"
    assert table["feasible"].tolist() == [True, True, False]


def test_a_promoted_trial_is_judged_by_all_its_folds(tmp_path):
    write_trial(tmp_path, "a", f0=[both(0.9, 0)], f1=[both(0.9, 0)], f2=[both(0.3, 0)])
    write_trial(tmp_path, "b", f0=[both(0.8, 0)], f1=[both(0.8, 0)], f2=[both(0.8, 0)])
    write_trial(tmp_path, "c", f0=[both(0.95, 0)], f1=[both(0.95, 0)])
    sweep = sweep_of()
    promoted = [Trial.read(tmp_path / name, (0, 1, 2)) for name in "ab"]
    table = rank_trials(read_trials(tmp_path, sweep), sweep, promoted)
    assert "".join(table["trial"]) == "bac"
    assert table["folds"].tolist() == [3, 3, 2]
    assert table.loc[1, DICE] == pytest.approx(0.7)


def test_a_promoted_trial_has_a_bound_of_its_own(tmp_path):
    """The third fold is a hard one, for the baseline as well."""
    write_trial(tmp_path, "a", f0=[both(0.9, 0)], f1=[both(0.9, 0)], f2=[both(0.5, 0)])
    write_trial(tmp_path, "b", f0=[both(0.85, 0)], f1=[both(0.85, 0)])
    write_trial(tmp_path, "c", f0=[both(0.75, 0)], f1=[both(0.75, 0)])
    constraint = BaselineConstraint(metric=DICE, at_least=0.8, promoted_at_least=0.7)
    sweep = sweep_of(constraints=(constraint,))
    table = rank_trials(read_trials(tmp_path, sweep), sweep, [Trial.read(tmp_path / "a", (0, 1, 2))])
    assert dict(zip(table["trial"], table["feasible"], strict=True)) == {"a": True, "b": True, "c": False}


def test_a_promoted_trial_that_failed_hides_no_good_one(tmp_path):
    objectives = (Objective(metric=DICE), Objective(metric=CORR))
    sweep = sweep_of(objectives=objectives)
    for name, state, dice in (("a", "failed", 0.9), ("b", "finished", 0.8), ("c", "finished", 0.85)):
        epoch = [both(dice, 0.1)]
        write_trial(tmp_path, name, state, f0=epoch, f1=epoch, **({} if name == "c" else {"f2": epoch}))
    folds = (0, 1, 2)
    table = rank_trials(read_trials(tmp_path, sweep), sweep, read_promoted(tmp_path, "ab", folds))
    assert "".join(table["trial"]) == "bca"
    assert "".join(table["trial"][table["front"]]) == "b"
    table = rank_trials(read_trials(tmp_path, sweep), sweep, read_promoted(tmp_path, "a", folds))
    assert "".join(table["trial"]) == "cba"
    assert "".join(table["trial"][table["front"]]) == "c"


def test_a_promoted_fold_that_never_began_is_missed(tmp_path):
    epoch = [both(0.5, 0)]
    write_trial(tmp_path, "a", f0=epoch, f1=epoch)
    (promoted,) = read_promoted(tmp_path, ["a"], (0, 1, 2))
    assert (promoted.state, promoted.epochs) == ("stopped", 0)


@pytest.mark.parametrize("modes", [("max", "max"), ("min", "max"), ("min", "min")])
def test_the_front_is_what_nothing_else_beats(modes):
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


def test_the_field_that_matters_is_found(tmp_path):
    random = np.random.default_rng(1)
    for number in range(20):
        unc, corr = random.random(), 10 ** random.uniform(-1, 1)
        metrics = both(1 - (unc - 0.3) ** 2 + 0.01 * math.log10(corr), 0)
        write_trial(tmp_path, f"t{number:02d}", "finished", (unc, corr), f0=[metrics], f1=[metrics])
    table = importances(read_trials(tmp_path, sweep_of()), sweep_of())
    assert table["field"].tolist() == ["loss.unc_weight", "loss.corr_weight"]
    assert table["importance"].iloc[0] > 0.8
    assert table["importance"].sum() == pytest.approx(1)
    assert (table["trials"] == 20).all()


def test_importances_are_compared_at_an_epoch_that_all_reached(tmp_path):
    for number in range(4):
        rising = [both(number / 10, 0), both(0.5, 0), both(0.5, 0)]
        write_trial(tmp_path, f"t{number}", "stopped", (number / 10, 1), f0=rising[: number + 1], f1=rising)
    table = importances(read_trials(tmp_path, sweep_of()), sweep_of())
    assert (table["epoch"] == 1).all()
    assert table.set_index("field").loc["loss.unc_weight", "importance"] == pytest.approx(1)
    few = importances(read_trials(tmp_path, sweep_of())[:3], sweep_of())
    assert few["importance"].isna().all()


def write_scores(folder, columns, scores):
    """A finished trial each; columns: for each field its values."""
    for number, score in enumerate(scores):
        values = {field: listed[number] for field, listed in columns.items()}
        write_json(folder / f"t{number}/values.json", values)
        for fold in (0, 1):
            spool = SpoolWriter(folder / f"t{number}/spool", fold, first_epoch=0)
            spool.epoch(0, both(score, 0))
            spool.state("finished")


@pytest.mark.parametrize("survived", [[0.01] * 4, [[0.2, 1, 0.2, 1]] * 4])
def test_fields_that_kept_one_value_explain_nothing(tmp_path, survived):
    """The other value of the list cannot be trained."""
    sweep = sweep_of(space={"f": {"choice": [survived[0], 1e300]}})
    write_scores(tmp_path, {"f": survived}, [0.1, 0.2, 0.3, 0.4])
    assert importances(read_trials(tmp_path, sweep), sweep)["importance"].isna().all()


def test_a_value_that_never_survived_takes_no_share_from_the_others(tmp_path):
    sweep = sweep_of(space={"f": {"choice": [0.01, 0.02, 1e300]}, "g": {"uniform": [0, 1]}})
    small, other = [0.01, 0.02] * 5, [number / 10 for number in range(10)]
    write_scores(tmp_path, {"f": small, "g": other}, [10 * f + 0.01 * g for f, g in zip(small, other, strict=True)])
    table = importances(read_trials(tmp_path, sweep), sweep).set_index("field")
    assert table.loc["f", "importance"] > 0.9


def test_a_value_written_in_another_way_than_it_is_listed(tmp_path):
    sweep = sweep_of(space={"f": {"choice": [[0.2, 1, 0.2, 1], [1, 1, 1, 1]]}})
    write_scores(tmp_path, {"f": [[0.2, 1.0, 0.2, 1.0], [1, 1, 1, 1]] * 4}, [0.1, 0.2] * 4)
    table = importances(read_trials(tmp_path, sweep), sweep)
    assert table["importance"].tolist() == [pytest.approx(1)]


def test_a_forest_without_a_split_is_no_error(tmp_path):
    """The field's two values lie too close for a tree, which computes in single precision."""
    sweep = sweep_of(space={"f": {"uniform": [0, 1]}})
    write_scores(tmp_path, {"f": [0.5, 0.5 + 1e-12] * 4}, [0.1, 0.2, 0.3, 0.4] * 2)
    assert importances(read_trials(tmp_path, sweep), sweep)["importance"].isna().all()


def test_what_was_heard_again_after_a_kill_counts_once(tmp_path):
    (tmp_path / "a").mkdir()
    lines = ['{"epoch": 1, "m": 0.1}', '{"epoch": 2, "m": 0.2}', '{"epo', '{"epoch": 2, "m": 0.3}']
    (tmp_path / "a/reported.jsonl").write_text("\n" + "\n".join(lines), encoding="utf-8")
    assert reported_table(tmp_path).to_dict("records") == [
        {"trial": "a", "epoch": 1, "m": 0.1},
        {"trial": "a", "epoch": 2, "m": 0.3},
    ]
