"""Sweep files: what is refused, all at once, and what a trial's values make of the base experiment."""

from pathlib import Path

import pytest
import yaml

from uncseg.errors import ProblemsFound
from uncseg.sweep_file import load_sweep, trial_experiment, write_best


@pytest.fixture
def sweep_file(experiment_file, tmp_path):
    base = experiment_file(tmp_path / "cases")

    def write(**fields):
        content = {"name": "test", "base": str(base), "space": {"loss.unc_weight": {"uniform": [0, 1]}}} | fields
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return tmp_path / "sweep.yaml"

    return write


@pytest.mark.parametrize(
    ("field", "words", "found"),
    [
        ("loss.unc_wait", {"uniform": [0, 1]}, "an unknown field"),
        ("loss.weight_ce.wt", {"uniform": [0, 1]}, "an unknown field"),
        ("plan.batch_size", {"choice": [2, 4]}, "a field that all trials share"),
        ("model.head", {"choice": ["labels"]}, "a field that all trials share"),
        ("loss.unc_weight", {"gauss": [0, 1]}, "gauss"),
        ("loss.unc_weight", {"uniform": [1, 1]}, "uniform: [1, 1]"),
        ("loss.unc_weight", {"uniform": [0, 1, 2]}, "uniform: [0, 1, 2]"),
        ("loss.unc_weight", {"loguniform": [0, 1]}, "loguniform: [0, 1]"),
        ("loss.unc_weight", {"grid_search": []}, "grid_search: []"),
        ("loss.unc_weight", {"uniform": [-1, 1]}, "-1"),
        ("training.momentum", {"choice": [0.9, 1.5]}, "1.5"),
    ],
)
def test_a_space_that_cannot_be(sweep_file, field, words, found):
    good = {"loss.corr_weight": {"uniform": [0, 1]}}
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(space={field: words} | good, folds=[0, 7]))
    folds, space = caught.value.problems
    assert (space.where.rpartition("space.")[2], space.found) == (field, found)
    assert folds.found == "7"
    assert caught.value.exit_code == 2


def test_values_and_overrides_reach_the_trial(sweep_file):
    space = {"loss.weight_ce.ed": {"choice": [0.2, 0.5]}, "training.initial_lr": {"loguniform": [0.001, 0.1]}}
    _, base = load_sweep(sweep_file(space=space, overrides={"training.epochs": 3}), ["memory.alpha=0.5"])
    values = {"loss.weight_ce.ed": 0.5, "training.initial_lr": 0.02}
    trial = trial_experiment(base, "abc_00001", Path("/shared/trials"), values)
    assert trial.loss.weight_ce == (0.2, 1, 0.5, 1)
    assert (trial.training.initial_lr, trial.training.epochs, trial.memory.alpha) == (0.02, 3, 0.5)
    assert trial.run_folder == Path("/shared/trials/abc_00001")
    assert trial.tracking_uri == base.tracking_uri  # one MLflow for all


def test_the_best_is_an_experiment_file(sweep_file, tmp_path):
    from uncseg.config import load_experiment

    sweep, base = load_sweep(sweep_file())
    write_best(base, sweep, {"loss.unc_weight": 0.7}, tmp_path / "best.yaml")
    best = load_experiment(tmp_path / "best.yaml")
    assert (best.name, best.loss.unc_weight, best.tracking.uri) == ("test_best", 0.7, None)
    assert best.storage.path == base.storage.path
