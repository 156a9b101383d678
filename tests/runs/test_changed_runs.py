"""Commands that go on with a run whose cases or folds were changed warn of it, on standard error alone."""

import json
import shutil
import socket

import pytest

import uncseg.console
from support.evaluated_runs import evaluate, write_other, write_run
from support.written_runs import save_final_checkpoint, train
from uncseg.cli import main
from uncseg.config.experiment import load_experiment
from uncseg.layout import RunFolder
from uncseg.runs.own_folds import done_record
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.load_study import save_study
from uncseg.studies.study_folder import BenchmarkFolder, SweepFolder
from uncseg.studies.sweep.sweep_file import Sweep

GONE = "BraTS-GLI-09999-000"
REMOVED = f"1 case removed: {GONE}"


def begin_with_a_case_more(run):
    """Write what the run was made from: a case that is not there any more."""
    settings = load_experiment(run.experiment).resolved().model_dump(mode="json")
    digests = dict.fromkeys(("dataset", "split", "preparation", "settings"), "0" * 64)
    cases = {GONE: {"digest": "0" * 64, "patient": GONE, "files": {}}}
    run.data.write_text(json.dumps({"cases": cases, "splits": [], "settings": settings, "digests": digests}))


def finish(run, *folds):
    """Write folds that have ended; the first number is that of the folder, the second that in its record."""
    model = run.results / "Dataset501_Small" / "T__P__3d_fullres"
    model.mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        (model / name).write_text("{}")
    for folder, fold in folds:
        save_final_checkpoint(run, folder)
        train(run, folder, 3)
        done = done_record(fold, 3, run.final_checkpoint(folder))
        (run.fold(folder) / "done.json").write_text(json.dumps(done))
    return model


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Two evaluated runs and a copy of the first in a sweep and in a benchmark, all begun with a case more."""
    root = tmp_path_factory.mktemp("changed")
    run = write_run(root)
    evaluate(run, root / "cases")
    finish(run, (0, 0))
    other = write_other(root, leave_out=())
    for each in (run, other):
        begin_with_a_case_more(each)
    base = load_experiment(root / "small.yaml")
    own = {"name": "search", "base": root / "small.yaml"}
    sweep = Sweep(**own, space={"loss.unc_weight": {"uniform": [0, 1]}}, objectives=[{"metric": "val_patch/dice_mean"}])
    benchmark = Benchmark(**own | {"name": "compare"}, trainings={"plain": {}})
    for folder, study in (
        (SweepFolder(root / "runs/search"), sweep),
        (BenchmarkFolder(root / "runs/compare"), benchmark),
    ):
        save_study(folder, study, base)
        for name in ("first", "second"):
            shutil.copytree(run.root, folder.runs / name)
        done = RunFolder(folder.runs / "second").fold(0) / "done.json"
        done.write_text(done.read_text().replace('"fold": 0', '"fold": 1'))
    return root


@pytest.fixture
def told(changed, empty_database, capsys, monkeypatch):
    """Run a command in the folder of the runs, and return its output and its problems."""
    monkeypatch.setattr(uncseg.console.console, "width", 2000)
    monkeypatch.chdir(changed)
    if not (changed / "runs/mlflow.db").exists():
        shutil.copy(empty_database, changed / "runs/mlflow.db")

    def run(line):
        with pytest.raises(SystemExit):
            main(line.replace("PORT", str(port)).split())
        return capsys.readouterr()

    with socket.socket() as taken:  # a page is not shown for ever
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        yield run


@pytest.mark.parametrize(
    "line",
    [
        "sync runs/small",
        "ui runs/other --no-browser --port PORT",
        "report runs/small",
        "evaluate runs/small runs/other",
        "predict runs/small cases out",
        "sync runs/search",
        "ui runs/search --no-browser --port PORT",
        "sync runs/compare",
        "ui runs/compare --no-browser --port PORT",
    ],
)
def test_a_changed_run_is_warned_of_on_standard_error(told, line):
    output, problems = told(line)
    assert "warning" not in output.lower()
    assert REMOVED in problems
    if "search" in line or "compare" in line:
        assert problems.count(REMOVED) == 1  # its runs have the same cases
        assert "/second/" in problems  # and folds of their own
        assert "the training of fold 1; expected that of fold 0" in problems


def test_a_folder_of_one_fold_says_which_fold_it_holds(told, tmp_path):
    model = finish(RunFolder(tmp_path / "run"), (0, 1), (1, 1))
    _, problems = told(f"predict {model}/fold_0 cases out")
    assert "the training of fold 1; expected that of fold 0" in problems
    _, problems = told(f"predict {model} cases out --folds 0,1")
    assert "the training of fold 1; expected that of fold 0" in problems
    _, problems = told(f"predict {model}/fold_1 cases out")
    assert "the training of fold" not in problems
