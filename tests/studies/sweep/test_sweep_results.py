"""The end of a sweep: the best trial as a file, the checkpoints that stay, and what MLflow is told."""

import math

import pytest
import yaml

from support.small_sweeps import CORR, DICE, SPACE, both, write_trial
from uncseg.config.experiment import load_experiment
from uncseg.errors import ProblemsFound
from uncseg.studies.load_study import save_study
from uncseg.studies.parent_run import open_parent, sync_study
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep import sweep_results
from uncseg.studies.sweep.load_sweep import load_sweep, refuse_other_sweep
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.sweep_mlflow import log_sweep
from uncseg.studies.sweep.sweep_results import close_sweep, why_none, write_best
from uncseg.studies.sweep.trials import Trial, rank_trials, read_trials
from uncseg.tracking.destination import open_store
from uncseg.tracking.record import MlflowRecord


@pytest.fixture
def loaded(experiment_file, tmp_path):
    base = experiment_file(tmp_path / "cases")

    def load(**fields):
        content = {"name": "s", "base": str(base), "space": SPACE, "trials": 9} | fields
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_sweep(tmp_path / "sweep.yaml")

    return load


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path / "runs/s")


def write_ended(folder, name, weight, *states, dice=0.5, corr=0.5):
    """A trial of one epoch; one state per fold."""
    epochs = [[both(dice, corr)]] * len(states)
    write_trial(folder.runs, name, *epochs, states=states, values={"loss.unc_weight": weight})


def ranked(folder, sweep, base, promoted=()):
    further = [Trial.read(folder.runs / name, sweep.promoted_folds(base)) for name in promoted]
    return rank_trials(read_trials(folder.runs, sweep), sweep, further)


def best_weight(folder):
    return load_experiment(folder.best).loss.unc_weight


def test_a_promoted_trial_that_failed_is_not_the_best(loaded, folder):
    sweep, base = loaded(promote={"top": 2, "folds": "all"})
    write_ended(folder, "a", 0.1, "finished", "failed", dice=0.9)
    write_ended(folder, "b", 0.2, "finished", "finished", dice=0.8)
    write_ended(folder, "c", 0.3, "finished", dice=0.85)
    assert write_best(folder, sweep, base, ranked(folder, sweep, base, ["a", "b"])) == "b"
    assert best_weight(folder) == 0.2
    # where no promoted one came through, the best of the screening is all there is
    assert write_best(folder, sweep, base, ranked(folder, sweep, base, ["a"])) == "c"


def test_a_trial_without_an_objective_is_never_the_best(loaded, folder):
    objectives = [{"metric": DICE}, {"metric": CORR}]
    sweep, base = loaded(objectives=objectives, scheduler={"type": "fifo"})
    write_ended(folder, "a", 0.1, "finished", corr=0.2)
    write_ended(folder, "b", 0.2, "finished", corr=math.nan)
    assert write_best(folder, sweep, base, ranked(folder, sweep, base)) == "a"
    assert [file.name for file in folder.front.iterdir()] == ["a.yaml"]
    write_ended(folder, "a", 0.1, "finished", corr=math.nan)
    assert write_best(folder, sweep, base, ranked(folder, sweep, base)) is None
    assert not folder.best.exists()
    assert not list(folder.front.iterdir())


def test_experiment_files_that_someone_edited_or_wrote_stay(loaded, folder):
    objectives = [{"metric": DICE}, {"metric": CORR}]
    sweep, base = loaded(objectives=objectives, scheduler={"type": "fifo"})
    write_ended(folder, "a", 0.1, "finished", dice=0.9, corr=0.2)
    write_best(folder, sweep, base, ranked(folder, sweep, base))
    (folder.front / "mine.yaml").write_text("mine: 1\n")
    folder.best.write_text(folder.best.read_text() + "# mine\n")
    write_ended(folder, "b", 0.2, "finished", dice=0.95, corr=0.3)
    with pytest.raises(ProblemsFound, match=r"best.yaml: found changed since it was written"):
        write_best(folder, sweep, base, ranked(folder, sweep, base))
    assert folder.best.read_text().endswith("# mine\n")
    folder.best.unlink()
    assert write_best(folder, sweep, base, ranked(folder, sweep, base)) == "b"
    assert sorted(file.name for file in folder.front.iterdir()) == ["b.yaml", "mine.yaml"]


@pytest.mark.parametrize(
    ("state", "dice", "reason"),
    [
        ("failed", 0.9, "no trial was finished"),
        ("finished", math.nan, "no trial that was finished has a value of every objective"),
        ("finished", 0.1, "no trial satisfies the constraints"),
    ],
)
def test_the_reason_for_having_no_best_trial_is_named(loaded, folder, state, dice, reason):
    sweep, base = loaded(constraints=[{"metric": DICE, "at_least": 0.5}])
    write_ended(folder, "a", 0.1, state, dice=dice)
    table = ranked(folder, sweep, base)
    assert write_best(folder, sweep, base, table) is None
    assert why_none(table, sweep).startswith(reason)


def write_checkpoints(folder, *names):
    for name in names:
        for fold in (0, 1):
            fold_folder = folder.runs / name / "folds/Dataset/Trainer__Plans__3d_fullres" / f"fold_{fold}"
            fold_folder.mkdir(parents=True)
            for file in ("checkpoint_final.pth", "checkpoint_best.pth", "resume_epoch_0001.pt", "console.log"):
                (fold_folder / file).write_bytes(b"x" * 500_000)


def with_checkpoints(folder):
    return {file.relative_to(folder.runs).parts[0] for file in folder.runs.rglob("*.pt*")}


def test_other_trials_keep_all_but_their_checkpoints(loaded, folder, capsys):
    objectives = [{"metric": DICE}, {"metric": CORR}]
    sweep, base = loaded(objectives=objectives, scheduler={"type": "fifo"}, promote={"top": 1, "folds": [0]})
    write_ended(folder, "best", 0.1, "finished", dice=0.9, corr=0.1)
    write_ended(folder, "front", 0.2, "finished", dice=0.5, corr=0.6)
    write_ended(folder, "lost", 0.4, "finished", dice=0.4, corr=0.1)
    write_ended(folder, "promoted", 0.3, "failed", dice=0.4, corr=0.1)
    write_ended(folder, "stopped", 0.5, "stopped", dice=0.99, corr=0.1)
    names = [trial.name for trial in folder.runs.iterdir()]
    write_checkpoints(folder, *names)
    for _ in range(2):  # as the same command again
        assert close_sweep(folder, sweep, base, ["promoted"]) == 0
        assert with_checkpoints(folder) == {"best", "front", "promoted"}
    assert capsys.readouterr().out.count("removed: checkpoints of 2 other trials, 6 MB") == 1
    for name in names:
        assert (folder.runs / name / "values.json").is_file()
        assert len(list((folder.runs / name / "spool").iterdir())) == 1
        assert len(list((folder.runs / name).rglob("console.log"))) == 2


@pytest.mark.parametrize(("keep", "state"), [("all", "finished"), ("best", "failed")])
def test_all_trials_keep_their_checkpoints(loaded, folder, keep, state):
    """Where the sweep file says so; and where there is no best trial, and somebody will ask why."""
    sweep, base = loaded(keep_checkpoints=keep)
    for name in ("a", "b"):
        write_ended(folder, name, 0.1, state)
    write_checkpoints(folder, "a", "b")
    close_sweep(folder, sweep, base, [])
    assert with_checkpoints(folder) == {"a", "b"}


def test_a_sweep_may_change_what_it_keeps_but_not_what_it_searches(loaded, folder):
    for keep in ("best", "all", "best"):
        sweep, base = loaded(keep_checkpoints=keep)
        refuse_other_sweep(folder, sweep, base)
        save_study(folder, sweep, base)
    sweep, base = loaded(trials=8)
    with pytest.raises(ProblemsFound, match="trials"):
        refuse_other_sweep(folder, sweep, base)


def test_the_best_trial_is_written_even_if_the_importances_fail(loaded, folder, monkeypatch):
    def fail(*_):
        raise RuntimeError("no tree")

    monkeypatch.setattr(sweep_results, "importances", fail)
    sweep, base = loaded()
    write_ended(folder, "a", 0.1, "finished")
    with pytest.raises(RuntimeError):
        close_sweep(folder, sweep, base, [])
    assert best_weight(folder) == 0.1
    assert (folder.tables / "trials.parquet").is_file()


def logged(folder, base):
    """What the sweep's run in MLflow holds: (its tags, its files)."""
    run_id = MlflowRecord.read(folder.manifest).parent.run_id
    client = open_store(base.tracking_uri, base.tracking.experiment).client
    files = [item.path for part in ("", "tables") for item in client.list_artifacts(run_id, part)]
    return client.get_run(run_id).data.tags, files


def test_a_sweep_ends_well_while_the_store_takes_no_files(loaded, folder, capsys):
    sweep, base = loaded()
    write_ended(folder, "a", 0.1, "finished")
    save_study(folder, sweep, base)
    place = folder.root.parent / "mlflow_artifacts"
    place.write_text("no folder")
    assert close_sweep(folder, sweep, base, []) == 0
    assert "the sweep's tables and figures" in capsys.readouterr().err
    tags, files = logged(folder, base)
    assert tags["uncseg.best"] == "a"
    assert "Best of 1 trials" in tags["mlflow.note.content"]
    assert files == []
    place.unlink()
    assert sync_study(folder, Sweep, log_sweep, None) == 0
    assert {"tables/trials.csv", "best.yaml"} <= set(logged(folder, base)[1])


def test_a_run_whose_id_a_kill_has_lost_is_found_by_its_key(loaded, folder):
    sweep, base = loaded()
    folder.root.mkdir(parents=True)
    run_id = open_parent(folder, sweep, base).run_id
    record = MlflowRecord.read(folder.manifest)
    record.parent.run_id = ""
    record.write(folder.manifest)
    assert open_parent(folder, sweep, base).run_id == run_id
