"""A sweep whose command was stopped: what the next command restores, and what it refuses."""

import json
import pickle
from types import SimpleNamespace

import pytest
import ray.tune
import yaml
from ray.tune.schedulers import TrialScheduler

from support.commands import uncseg
from support.intruder import Intruder
from support.small_sweeps import DICE, SPACE, asha_rungs, small_sweep
from uncseg.config.experiment import load_experiment
from uncseg.errors import ProblemsFound
from uncseg.files import read_json, write_json
from uncseg.ownership import make_own
from uncseg.studies.load_study import save_study
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.budget import BudgetStopper
from uncseg.studies.sweep.load_sweep import load_sweep
from uncseg.studies.sweep.search import replay_reports, tune_config
from uncseg.studies.sweep.snapshots import can_go_on, refuse_strangers_state
from uncseg.studies.sweep.sweep_file import Budget, Objective
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trial_events import TrialEvents
from uncseg.studies.sweep.trials import reported_table
from uncseg.studies.sweep.tuner import sweep_tuner

EPOCHS = 4


def sweep_of(**fields):
    asha = {"type": "asha", "grace_epochs": 1, "reduction_factor": 2}
    return small_sweep(**{"trials": 6, "base_first": False, "scheduler": asha} | fields)


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_rungs_are_filled_from_what_was_reported(tmp_path, mode, sign):
    sweep = sweep_of(objectives=(Objective(metric=DICE, mode=mode),))
    ends = {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.7], "c": [0.1]}
    for name, values in ends.items():
        lines = [json.dumps({"epoch": epoch, DICE: sign * value}) for epoch, value in enumerate(values, start=1)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "reported.jsonl").write_text("\n".join(lines), encoding="utf-8")
    scheduler = tune_config(sweep, EPOCHS, 1).scheduler
    replay_reports(scheduler, reported_table(tmp_path), sweep)
    assert asha_rungs(scheduler) == {2: {"a": 0.6, "b": 0.7}, 1: {"a": 0.5, "b": 0.6, "c": 0.1}}
    for name, value, decision in (("weak", 0.3, TrialScheduler.STOP), ("good", 0.55, TrialScheduler.CONTINUE)):
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        assert scheduler.on_trial_result(None, trial, {"epoch": 1, DICE: sign * value}) == decision
    replay_reports(
        tune_config(sweep_of(scheduler={"type": "fifo"}), EPOCHS, 1).scheduler, reported_table(tmp_path), sweep
    )


class Events(TrialEvents):
    """Without MLflow; ends the command at a trial's first epoch."""

    def __init__(self, setup, killed_at=None):
        super().__init__(setup, "")
        self.killed_at = killed_at

    def on_trial_start(self, trial, **_info):
        pass

    def on_trial_complete(self, trial, **_info):
        pass

    def on_trial_error(self, trial, **_info):
        pass

    def on_trial_result(self, trial, result, **info):
        super().on_trial_result(trial, result, **info)
        if len(drawn(self.trial_setup.folder.runs)) == self.killed_at:
            raise RuntimeError("killed")


@pytest.mark.parametrize(
    "search",
    [pytest.param({"type": "random"}, marks=pytest.mark.slow), {"type": "tpe", "random_trials": 2}],
    ids=["random", "tpe"],
)
def test_a_stopped_search_goes_on_with_its_trials_and_rungs_and_another_number_at_once(
    local_ray, experiment_file, tmp_path, monkeypatch, search
):
    """Each trial is worse than those before it: ASHA ends all but the first at their first epoch, if it remembers."""

    def train(values, setup):
        folder = setup.folder.runs / ray.tune.get_context().get_trial_id()
        write_json(folder / "values.json", dict(values))
        score = -len(list(setup.folder.runs.iterdir()))
        for epoch in range(1, EPOCHS + 1):
            ray.tune.report({"epoch": epoch, DICE: score})

    sweep = sweep_of(search=search)
    base = load_experiment(experiment_file(tmp_path / "cases", training={"epochs": EPOCHS}))
    setup = TrialSetup(sweep, base, None, SweepFolder(tmp_path), None)
    setup.folder.runs.mkdir()
    monkeypatch.setattr("uncseg.studies.sweep.tuner.SNAPSHOT_S", "0")
    budget = BudgetStopper(Budget(), 0, 0, 0)
    with pytest.raises(Exception, match="killed"):
        sweep_tuner(setup, 1, budget, Events(setup, killed_at=3), train).fit()
    before = drawn(setup.folder.runs)
    assert len(before) == 3

    second = sweep_tuner(setup, 2, budget, Events(setup), train)
    config = second._local_tuner._tune_config
    assert config.search_alg.max_concurrent == 2
    second.fit()
    assert config.search_alg.max_concurrent == 2  # not what the state of the search says
    after = drawn(setup.folder.runs)
    assert len(after) == 6
    assert before.items() <= after.items()
    assert len({tuple(values.items()) for values in after.values()}) == 6  # none was drawn again
    rungs = asha_rungs(config.scheduler)
    assert set(rungs[1]) == set(after)  # of both commands
    # the trial at work had reported at its rung, but the decision to end it there was not kept
    last = reported_table(setup.folder.runs).groupby("trial")["epoch"].max()
    assert sorted(last) == [1, 1, 1, 1, 2, EPOCHS]


def drawn(folder):
    return {file.parent.name: read_json(file) for file in folder.glob("*/values.json")}


def write_session(tune, session, drawn, torn=()):
    """A session's files, those named in ``torn`` cut off."""
    files = {
        f"experiment_state-{session}.json": json.dumps({"trial_data": drawn}).encode(),
        f"search_gen_state-{session}.json": pickle.dumps({"counter": len(drawn)}),
        f"searcher-state-{session}.pkl": pickle.dumps({"drawn": drawn}),
    }
    tune.mkdir(exist_ok=True)
    for name, content in files.items():
        (tune / name).write_bytes(content[: len(content) // 2] if name.startswith(torn or "-") else content)


TPE = {"search": {"type": "tpe"}}


@pytest.mark.parametrize("torn", ["experiment_state", "search_gen_state", "searcher-state"])
def test_an_older_snapshot_stands_in_for_a_torn_one(tmp_path, torn):
    trials, tune = tmp_path / "trials", tmp_path / "tune"
    write_json(trials / "a/values.json", {})
    write_session(tune, "2026-01-01", ["a"])
    write_session(tune, "2026-01-02", ["a", "b"], torn)
    assert can_go_on(SweepFolder(tmp_path), sweep_of(**TPE))
    assert read_json(tune / "experiment_state-2026-01-02.json") == {"trial_data": ["a"]}
    assert pickle.loads((tune / "searcher-state-2026-01-02.pkl").read_bytes()) == {"drawn": ["a"]}
    assert len(list(tune.glob("*-2026-01-02.*.damaged"))) == 3
    assert can_go_on(SweepFolder(tmp_path), sweep_of(**TPE))


def test_trials_without_a_snapshot_that_can_be_read_are_refused(tmp_path):
    trials, tune = tmp_path / "trials", tmp_path / "tune"
    assert not can_go_on(SweepFolder(tmp_path), sweep_of())
    write_session(tune, "2026-01-01", ["a"], "experiment_state")
    assert not can_go_on(SweepFolder(tmp_path), sweep_of(**TPE))  # killed before the first trial: it begins anew
    write_json(trials / "a/values.json", {})
    with pytest.raises(ProblemsFound) as caught:
        can_go_on(SweepFolder(tmp_path), sweep_of(**TPE))
    (problem,) = caught.value.problems
    assert str(tmp_path) in problem.advice


def test_a_state_from_someone_else_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """Also one that was moved; that of a folder made here, and no state at all, are not."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = SweepFolder(tmp_path / "sweep")
    refuse_strangers_state(folder)
    make_own(folder.root)
    write_session(folder.tune, "2026-01-01", ["a"])
    refuse_strangers_state(folder)
    moved = SweepFolder(folder.root.rename(tmp_path / "moved"))
    with pytest.raises(ProblemsFound, match="--trust") as caught:
        refuse_strangers_state(moved)
    assert [problem.where for problem in caught.value.problems] == [str(moved.tune)]


def test_a_sweep_from_someone_else_runs_no_code(experiment_file, four_cases, tmp_path):
    experiment = experiment_file(four_cases, training={"epochs": EPOCHS})
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"name": "given", "base": str(experiment), "space": SPACE, "trials": 2}))
    sweep, base = load_sweep(file)
    folder = SweepFolder(tmp_path / "runs" / "given")
    folder.root.mkdir(parents=True)
    save_study(folder, sweep, base)
    write_session(folder.tune, "2026-01-01", ["a"])
    for state in folder.tune.iterdir():
        state.write_bytes(pickle.dumps(Intruder(tmp_path / "intruded")))
    said = uncseg("sweep", file, code=2)
    assert "--trust" in said
    assert not (tmp_path / "intruded").exists()
