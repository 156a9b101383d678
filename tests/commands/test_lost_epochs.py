"""The spool of a finished fold that has lost epochs: no command goes on as if the others were all."""

from pathlib import Path

import pytest

from support.commands import uncseg
from support.evaluated_runs import evaluate, train, write_run
from uncseg.files import write_json
from uncseg.tracking.lost_epochs import lost_epochs
from uncseg.tracking.spool import epoch_table, fold_file

EPOCHS = 4


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An evaluated run of which folds 0 and 1 have finished, with numbers in place of a network."""
    root = tmp_path_factory.mktemp("lost")
    run = evaluate(write_run(root), root / "cases")
    for name in ("plans.json", "dataset.json"):
        write_json(run.model / name, {})
    for fold in (0, 1):
        train(run, fold, EPOCHS, finish=True)
        run.final_checkpoint(fold).parent.mkdir(parents=True)
        run.final_checkpoint(fold).write_bytes(b"weights")
        write_json(run.fold(fold) / "done.json", {"fold": fold, "epochs": EPOCHS})
    return run


@pytest.fixture
def run(finished):
    """The finished run, whose spool is as it was again after the test."""
    kept = {path: path.read_bytes() for path in finished.spool.iterdir()}
    yield finished
    for path, content in kept.items():
        path.write_bytes(content)


def without(number):
    return lambda whole: b"".join(line for n, line in enumerate(whole.splitlines(True)) if n != number)


DAMAGES = {
    "half": (lambda whole: b"".join(whole.splitlines(True)[:3]), "2 of 4 epochs: 2 to 3 missing"),
    "empty": (lambda _whole: b"", "0 of 4 epochs: 0 to 3 missing"),
    "random": (lambda _whole: bytes(range(256)) * 40, "0 of 4 epochs"),
    "one line less": (without(2), "3 of 4 epochs: 1 missing"),
    "one line unreadable": (lambda whole: whole.replace(b'"epoch": 1,', b'"epoch": ?,'), "3 of 4 epochs: 1 missing"),
    "last line torn": (lambda whole: whole[:-9], "no record of its end"),
}


def refused(run, *said):
    """Check that each command that reads the metrics refuses the run, and writes nothing."""
    page = run.root / "report.html"
    tables = {path: path.read_bytes() for path in run.tables.iterdir()}
    for command in ("report", "evaluate", "sync"):
        printed = uncseg(command, run.root, code=1).split()  # a table, whose cells are wrapped
        assert set(" ".join((*said, "restore it from a copy")).split()) <= set(printed), command
    assert {path: path.read_bytes() for path in run.tables.iterdir()} == tables
    assert not page.exists()
    assert not run.manifest.exists()


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_spool_of_a_finished_fold_is_named_with_what_is_missing(run, kind):
    content, said = DAMAGES[kind]
    file = fold_file(run.spool, 0)
    file.write_bytes(content(file.read_bytes()))
    assert [said in problem.found for problem in lost_epochs(run)] == [True]
    refused(run, said)


def test_a_spool_that_is_gone_is_named(run):
    fold_file(run.spool, 1).unlink()
    refused(run, "no file")


def test_exchanged_spools_are_named_both(run):
    files = [fold_file(run.spool, fold) for fold in (0, 1)]
    first, second = (file.read_bytes() for file in files)
    files[0].write_bytes(second)
    files[1].write_bytes(first)
    found = {Path(problem.where).name: problem.found for problem in lost_epochs(run)}
    assert found == {"fold_0.jsonl": "records of fold 1", "fold_1.jsonl": "records of fold 0"}
    refused(run, *found.values())
    assert epoch_table(run.spool).empty


def test_a_torn_last_line_of_a_fold_that_trains_costs_its_epoch_alone(run, tmp_path):
    train(run, 2, EPOCHS)
    file = fold_file(run.spool, 2)
    lines = file.read_bytes().splitlines(True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:-9])
    uncseg("report", run.root)
    (run.root / "report.html").unlink()
    assert set(epoch_table(run.spool).query("fold == 2")["epoch"]) == {0, 1, 2}
