"""Sweep files: what is refused, all at once, and what a trial's values make of the base experiment."""

import math
from pathlib import Path

import pytest
import yaml

from support.own_tasks import LIVER, SHELL
from support.small_sweeps import CORR, DICE, SPACE
from uncseg.config.experiment import load_experiment
from uncseg.errors import ProblemsFound
from uncseg.studies.load_study import read_study, save_study
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.load_sweep import load_sweep, refuse_other_sweep
from uncseg.studies.sweep.space import base_values, trial_experiment, write_trial
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.tasks.built_in_tasks import built_in
from uncseg.tracking.spool import SpoolWriter

BOTH = [{"metric": DICE}, {"metric": CORR}]


@pytest.fixture
def sweep_file(experiment_file, tmp_path):
    base = experiment_file(tmp_path / "cases")

    def write(**fields):
        content = {"name": "test", "base": str(base), "space": SPACE} | fields
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return tmp_path / "sweep.yaml"

    return write


@pytest.mark.parametrize(
    ("field", "domain", "found"),
    [
        ("loss.unc_wait", {"uniform": [0, 1]}, "an unknown field"),
        ("loss.weight_ce.wt", {"uniform": [0, 1]}, "an unknown field"),
        ("plan.batch_size", {"choice": [2, 4]}, "a field that all trials share"),
        ("model.output", {"choice": ["labels"]}, "a field that all trials share"),
        ("loss.unc_weight", {"gauss": [0, 1]}, "gauss"),
        ("loss.unc_weight", {"uniform": [1, 1]}, "uniform: [1, 1]"),
        ("loss.unc_weight", {"uniform": [0, 1, 2]}, "uniform: [0, 1, 2]"),
        ("loss.unc_weight", {"quniform": [0, 1, 0]}, "quniform: [0, 1, 0]"),
        ("loss.unc_weight", {"loguniform": [0, 1]}, "loguniform: [0, 1]"),
        ("loss.unc_weight", {"grid_search": []}, "grid_search: []"),
        ("loss.unc_weight", {"uniform": [-1, 1]}, "-1"),
        ("training.momentum", {"choice": [0.9, 1.5]}, "1.5"),
        ("loss.unc_weight", {"quniform": [0, 1, 0.3]}, "quniform: [0, 1, 0.3]"),
        ("loss.unc_weight", {"quniform": [0, 1, 1.0e-320]}, "quniform: [0, 1, 1e-320]"),
        ("loss.unc_weight", {"quniform": [0, 1e6, 1e-310]}, "quniform: [0, 1000000.0, 1e-310]"),
        ("loss.unc_weight", {"uniform": [0, 10**400]}, f"uniform: [0, 1{'0' * 86}…"),
        ("training.epochs", {"randint": [1, 10**400]}, f"randint: [1, 1{'0' * 86}…"),
        ("loss.unc_weight", {"qloguniform": [0.1, 1, 0.2]}, "qloguniform: [0.1, 1, 0.2]"),
        ("training.accumulate", {"qrandint": [1, 9, 2]}, "qrandint: [1, 9, 2]"),  # Tune would draw 0 as well
        ("training.accumulate", {"uniform": [1, 4]}, str(1 + 3 / math.pi)),
        ("training.accumulate", {"loguniform": [1, 4]}, str(1 + 3 / math.pi)),
        ("training.accumulate", {"quniform": [1, 4, 0.5]}, "1.5"),
    ],
)
def test_a_field_or_a_domain_that_cannot_be_searched_is_named(sweep_file, field, domain, found):
    good = {"loss.corr_weight": {"uniform": [0, 1]}}
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(space={field: domain} | good, folds=[0, 7]))
    folds, space = caught.value.problems
    assert (space.where.rpartition("space.")[2], space.found) == (field, found)
    assert folds.found == "7"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("field", "domain"),
    [
        ("training.oversample_foreground", {"randint": [0, 2]}),  # 2 is not drawn
        ("training.accumulate", {"lograndint": [1, 2]}),
        ("training.accumulate", {"quniform": [1, 4, 1]}),
        ("training.accumulate", {"qrandint": [2, 8, 2]}),
        ("loss.unc_weight", {"quniform": [0.1, 0.7, 0.1]}),
    ],
)
def test_ranges_whose_every_value_fits_are_taken(sweep_file, field, domain):
    load_sweep(sweep_file(space={field: domain}))


GRID = {f"loss.{name}_weight": {"grid_search": [i / 10 for i in range(10)]} for name in ("unc", "rmsd", "corr")}


@pytest.mark.parametrize(
    ("fields", "where", "found"),
    [
        ({"space": GRID, "trials": 10}, "trials", "1000 points of the grid"),
        ({"space": GRID, "trials": 1000, "search": {"type": "tpe"}}, "search.type", "grid_search for loss."),
        ({"search": {"type": "grid"}}, "search.type", "loss.unc_weight without grid_search"),
        ({"search": {"type": "nsga2", "population": 2}, "trials": 4}, "search.type", "nsga2 for one objective"),
        (
            {"search": {"type": "nsga2", "population": 9}, "objectives": BOTH, "scheduler": {"type": "fifo"}},
            "search.population",
            "9",
        ),
        (
            {"objectives": [{"metric": "train/dice"}]},
            "objectives.0.metric",
            "train/dice, which no fold reports",
        ),
        (
            {"constraints": [{"metric": "train/loss_output_l2", "at_least": 0}]},
            "constraints.0.metric",
            "train/loss_output_l2, which no fold reports",
        ),
        ({"objectives": BOTH}, "scheduler.type", "asha with 2 objectives"),
        ({"scheduler": {"metric": CORR}}, "scheduler.metric", CORR),
        ({"scheduler": {"grace_epochs": 4}}, "scheduler.grace_epochs", "4"),
        ({"promote": {"top": 2}}, "promote.top", "2"),
        ({"promote": {"top": 1, "folds": [5]}}, "promote.folds", "5"),
        (
            {"space": {"loss.unc_weight": {"qloguniform": [0.1, 1, 0.1]}}, "search": {"type": "tpe"}},
            "space.loss.unc_weight",
            "qloguniform",
        ),
        ({"constraints": [{"metric": DICE, "baseline": "plain"}]}, "constraints.0.baseline", "no run in "),
    ],
)
def test_settings_that_do_not_fit_together_are_named(sweep_file, fields, where, found):
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(**fields))
    (problem,) = caught.value.problems
    assert problem.where.rpartition(": ")[2] == where
    assert problem.found.startswith(found)
    assert problem.expected
    assert problem.advice


LEARNING = {
    "space": {"failures.initial_lr": {"loguniform": [0.001, 0.01]}},
    "overrides": {"failures.steps": 10},
    "objectives": [{"metric": "failures/auprc_lead"}],
    "scheduler": {"type": "fifo"},
}


def test_a_space_of_failures_alone_needs_neither_epochs_nor_one_member(sweep_file):
    sweep, _ = load_sweep(sweep_file(**LEARNING | {"overrides": {"failures.steps": 10, "training.members": 5}}))
    assert sweep.of_failures
    assert not load_sweep(sweep_file())[0].of_failures


@pytest.mark.parametrize("space", [{"failures.trees": {"randint": [1, 9]}}, {"failures.seed": {"choice": [1, 2]}}])
def test_trees_alone_are_learning_too(sweep_file, space):
    assert load_sweep(sweep_file(**LEARNING | {"space": space, "overrides": {"failures.trees": 20}}))[0].of_failures


@pytest.mark.parametrize(
    ("fields", "where", "found"),
    [
        ({"space": LEARNING["space"] | SPACE}, "space", f"{', '.join(SPACE)} beside fields of failures"),
        ({"overrides": {}}, "failures.perceptron", "trials that learn no more than calibrated p"),
        (
            {"space": {"failures.steps": {"choice": [0, 50]}}},
            "failures.perceptron",
            "trials that learn no more than calibrated p",
        ),
        ({"space": {"failures.steps": {}}}, "space.failures.steps", "nothing"),
        ({"space": {"failures.trees": {"choice": [9]}}}, "space.failures.trees", "9"),  # beside steps of a network
        (
            {"space": {f"failures.{name}": {"choice": [0, 9]} for name in ("trees", "perceptron")}, "overrides": {}},
            "failures.perceptron",
            "failures.perceptron and failures.trees above 0",
        ),
        ({"scheduler": {"type": "asha"}}, "scheduler.type", "asha"),
        ({"promote": {"top": 1}}, "promote", "trials of more folds later"),
        ({"objectives": [{"metric": DICE}]}, "objectives.0.metric", f"{DICE}, which no fold reports"),
        ({"constraints": [{"metric": "failures/ece", "baseline": "plain"}]}, "constraints.0.baseline", "plain"),
    ],
)
def test_what_a_sweep_over_failures_cannot_do_is_named(sweep_file, fields, where, found):
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(**LEARNING | fields))
    problems = {problem.where.rpartition(": ")[2]: problem for problem in caught.value.problems}
    assert problems[where].found == found
    assert problems[where].expected
    assert problems[where].advice


def test_a_figure_of_failures_belongs_to_a_sweep_over_failures(sweep_file):
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(objectives=LEARNING["objectives"]))
    (problem,) = caught.value.problems
    assert problem.found == "failures/auprc_lead, which no fold reports"
    assert DICE in problem.expected


def test_a_weight_of_a_class_that_the_task_does_not_have(sweep_file):
    space = {"loss.weight_ce.snfh": {"uniform": [0, 1]}}
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(space=space))
    (problem,) = caught.value.problems
    assert problem.expected == "a class of gli-2023: background, ncr, ed, et"
    overrides = {"dataset.task": "gli-2024", "loss.weight_ce": None, "loss.weight_ce.rc": 2}
    sweep, base = load_sweep(sweep_file(space=space, overrides=overrides))
    trial = trial_experiment(base, "abc_00001", Path("/shared/trials"), {"loss.weight_ce.snfh": 0.25})
    assert trial.loss.weight_ce == (1, 1, 0.25, 1, 2)
    assert trial.dataset.task == built_in("gli-2024")
    assert base_values(sweep.space, base) == {"loss.weight_ce.snfh": 1}


@pytest.mark.parametrize("task", [built_in("gli-2024"), LIVER, SHELL], ids=lambda task: task.name)
def test_the_folder_of_a_sweep_keeps_the_task(sweep_file, tmp_path, task):
    """Regions have an order, which drawing them needs."""
    overrides = {"dataset.task": task.model_dump(mode="json"), "loss.weight_ce": None}
    sweep, base = load_sweep(sweep_file(overrides=overrides))
    assert base.dataset.task == task
    folder = SweepFolder(base.storage.path.resolve() / "sweep")
    save_study(folder, sweep, base)
    saved, read = read_study(folder, Sweep)
    assert saved.model_copy(update={"base": sweep.base}) == sweep
    assert read == base.resolved()
    assert list(read.dataset.task.regions) == list(task.regions)
    refuse_other_sweep(folder, sweep, base)
    write_trial(base, "best", {"loss.unc_weight": 0.3}, tmp_path / "best.yaml")
    assert load_experiment(tmp_path / "best.yaml").dataset.task == task


def test_values_and_overrides_reach_the_trial(sweep_file):
    space = {"loss.weight_ce.ed": {"choice": [0.2, 0.5]}, "training.initial_lr": {"loguniform": [0.001, 0.1]}}
    _, base = load_sweep(sweep_file(space=space, overrides={"training.epochs": 3}), ["memory.alpha=0.5"])
    values = {"loss.weight_ce.ed": 0.5, "training.initial_lr": 0.02}
    trial = trial_experiment(base, "abc_00001", Path("/shared/trials"), values)
    assert trial.loss.weight_ce == (0.2, 1, 0.5, 1)
    assert (trial.training.initial_lr, trial.training.epochs, trial.memory.alpha) == (0.02, 3, 0.5)
    assert trial.run_folder == Path("/shared/trials/abc_00001")
    assert trial.tracking_uri == base.tracking_uri  # one MLflow for all


@pytest.mark.parametrize(
    ("space", "values"),
    [
        ({"loss.unc_weight": {"uniform": [0, 1]}, "loss.weight_ce.ed": {"choice": [0.1, 0.2]}}, [0.4, 0.2]),
        ({"loss.unc_weight": {"quniform": [0, 1, 0.2]}, "training.seed": {"randint": [0, 3]}}, [0.4, 0]),
        ({"loss.unc_weight": {"quniform": [0, 0.9, 0.3]}}, None),
        ({"loss.weight_ce": {"choice": [[1, 1, 1, 1], [0.2, 1, 0.2, 1]]}}, [[0.2, 1, 0.2, 1]]),
        ({"loss.unc_weight": {"uniform": [0.5, 1]}}, None),
        ({"loss.unc_weight": {"grid_search": [0.4]}}, None),
        ({"training.seed": {"randint": [1, 3]}}, None),
        ({"training.precision": {"choice": ["bf16"]}}, None),
    ],
)
def test_the_bases_own_values_are_found_where_the_space_contains_them(sweep_file, space, values):
    sweep, base = load_sweep(sweep_file(space=space, trials=2))
    found = base_values(sweep.space, base)
    assert repr(None if found is None else [found[field] for field in space]) == repr(values)  # as it is listed


def test_a_trial_is_written_as_an_experiment_file(sweep_file, tmp_path):
    _, base = load_sweep(sweep_file())
    write_trial(base, "test_best", {"loss.unc_weight": 0.7}, tmp_path / "best.yaml")
    best = load_experiment(tmp_path / "best.yaml")
    assert (best.name, best.loss.unc_weight, best.tracking.uri) == ("test_best", 0.7, None)
    assert best.storage.path == base.storage.path


def test_a_baseline_is_the_mean_over_the_sweeps_folds_at_the_end(sweep_file, tmp_path):
    runs = tmp_path / "runs/plain"
    for fold, last in ((0, 0.8), (1, 0.6)):
        spool = SpoolWriter(runs / "spool", fold, first_epoch=0)
        for epoch, value in enumerate((0.1, 0.2, 0.3, last)):
            spool.epoch(epoch, {DICE: value})
        spool.state("finished")
    (runs / "experiment.yaml").write_text(yaml.safe_dump({"training": {"epochs": 4}}), encoding="utf-8")
    constraint = {"metric": DICE, "baseline": "plain", "tolerance": 0.002}
    sweep, _ = load_sweep(sweep_file(folds=[0, 1], constraints=[constraint]))
    assert sweep.constraints[0].bound() == pytest.approx(0.698)
    promoted, _ = load_sweep(sweep_file(folds=[0], promote={"top": 1, "folds": "all"}, constraints=[constraint]))
    (known,) = promoted.constraints
    assert (known.bound(), known.bound(promoted=True)) == (pytest.approx(0.798), pytest.approx(0.698))

    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(constraints=[constraint], overrides={"training.epochs": 9}))
    assert caught.value.problems[0].found == "a run of 4 epochs"
    SpoolWriter(runs / "spool", 1, first_epoch=2).epoch(2, {DICE: 0.5})
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(folds=[0, 1], constraints=[constraint]))
    assert caught.value.problems[0].found.startswith("fold 1 running")
    load_sweep(sweep_file(folds=[0], constraints=[constraint]))
    with pytest.raises(ProblemsFound) as caught:
        load_sweep(sweep_file(folds=[0], promote={"top": 1, "folds": [1]}, constraints=[constraint]))
    assert caught.value.problems[0].found.startswith("fold 1 running")
