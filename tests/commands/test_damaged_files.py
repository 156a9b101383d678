"""Files of a run that were damaged: each command names them, or makes them again; none ends with a traceback."""

import pandas as pd
import pytest

from support.commands import uncseg
from support.evaluated_runs import evaluate, train, write_other, write_run
from uncseg.tracking.manifest import update_manifest

DAMAGES = {
    "empty": lambda _whole: b"",
    "brace": lambda _whole: b"{",
    "list": lambda _whole: b"[]",
    "no UTF-8": lambda _whole: b"\xff\xfe",
    "cut": lambda whole: whole[: len(whole) // 3],
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, evaluated without a network."""
    root = tmp_path_factory.mktemp("damaged")
    run = evaluate(write_run(root), root / "cases")
    train(run, 0, 3)
    update_manifest(run.manifest, digests={"split": "a"})
    return run, write_other(root, ["BraTS-GLI-00000-000"])


@pytest.fixture
def damage(runs):
    """A function that damages a file of the first run until the end of a test, and returns it."""
    kept = {}

    def write(name, content):
        file = runs[0].root / name
        kept[file] = file.read_bytes()
        file.write_bytes(content(kept[file]))
        return file

    yield write
    for file, content in kept.items():
        file.write_bytes(content)


def words(text):
    return " ".join(text.replace("│", " ").split())


def code_and_words(*arguments):
    """Run a command that has to be refused; return what it said."""
    for code in (1, 2):
        try:
            return words(uncseg(*arguments, code=code))
        except pytest.fail.Exception as failure:
            if f"ended with {3 - code}" not in str(failure):
                raise
    raise AssertionError


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", ["experiment.yaml", "manifest.json"])
def test_damaged_settings_and_manifest_are_named(runs, damage, name, kind):
    file = damage(name, DAMAGES[kind])
    before = {path: path.stat().st_mtime_ns for path in runs[0].tables.iterdir()}
    said = code_and_words("report", runs[0].root)
    assert file.name in said
    assert {path: path.stat().st_mtime_ns for path in runs[0].tables.iterdir()} == before


@pytest.mark.parametrize(("name", "kind"), [("per_case", "cut"), ("scores", "empty")])
def test_damaged_tables_are_named_with_what_writes_them_again(runs, damage, name, kind):
    file = damage(f"tables/{name}.parquet", DAMAGES[kind])
    commands = [("report", runs[0].root), ("evaluate", runs[0].root, runs[1].root)]
    for command in commands[: 2 if name == "scores" else 1]:
        said = words(uncseg(*command, code=1))
        assert file.name in said
        assert "uncseg evaluate" in said


def test_a_table_of_another_shape_is_named(runs, damage, tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    damage("tables/scores.parquet", lambda _whole: (tmp_path / "other.parquet").read_bytes())
    for command in (("report", runs[0].root), ("evaluate", runs[0].root, runs[1].root)):
        assert "scores.parquet" in words(uncseg(*command, code=1))


def test_damaged_lines_of_a_spool_cost_only_their_epochs(runs, damage):
    lines = [
        b"\xff\xfe",
        b"[]",
        b'{"kind": "epoch"}',
        b'{"kind": "epoch", "attempt": "x", "time_ms": 1, "epoch": 2, "metrics": {}}',
        b'{"kind": "epoch", "attempt": 1, "time_ms": 1, "epoch": 2, "metrics": {"a": "b"}}',
        b"[" * 100_000,
    ]
    damage("spool/fold_0.jsonl", lambda whole: b"\n".join([*lines, *whole.splitlines(), *lines]) + b"\n")
    uncseg("report", runs[0].root)
    assert "3 of 500 epochs trained" in (runs[0].root / "report.html").read_text()


@pytest.mark.parametrize("name", ["BraTS-GLI-00003-000_error", "BraTS-GLI-00003-000"])
def test_a_damaged_map_or_segmentation_is_named_with_what_makes_it_again(runs, damage, name):
    file = damage(f"out_of_fold/{name}.nii.gz", DAMAGES["cut"])
    said = words(uncseg("report", runs[0].root, code=1))
    assert file.name in said
    assert "exclude" not in said
    assert "uncseg evaluate" in said
