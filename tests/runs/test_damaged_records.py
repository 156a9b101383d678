"""A run whose experiment.yaml, done.json or tables are damaged, edited or gone: what is said of it costs no result."""

import json

import pandas as pd
import pytest
import yaml

import uncseg.console
from support.written_runs import save_final_checkpoint, train
from uncseg.cli import main
from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.console import console
from uncseg.layout import RunFolder
from uncseg.report.run_figures import page_outputs
from uncseg.table_files import write_table


class Trained:
    """A run of one finished fold, as its records tell."""

    def __init__(self, root):
        self.run = RunFolder(root / "runs" / "small")
        (root / "cases").mkdir()
        self.file = root / "small.yaml"
        dataset = {"path": str(root / "cases"), "name": "Small"}
        content = {"name": "small", "dataset": dataset, "storage": {"path": str(root / "runs")}, "split": {"folds": 2}}
        self.file.write_text(yaml.safe_dump(content))
        self.settings = load_experiment(self.file).resolved()
        save_experiment(self.settings, self.run.experiment)
        digests = dict.fromkeys(("dataset", "split", "preparation"), "0" * 64)
        data = {"cases": {}, "splits": [], "settings": self.settings.model_dump(mode="json"), "digests": digests}
        self.run.data.write_text(json.dumps(data))
        (self.run.results / "Dataset501_Small" / "T__P__3d_fullres").mkdir(parents=True)
        save_final_checkpoint(self.run, 0)
        train(self.run, 0, 3)
        self.done = self.run.fold(0) / "done.json"
        self.done.write_text(json.dumps({"fold": 0, "epochs": 3}))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.setattr(uncseg.console.errors, "width", 2000)
    return Trained(tmp_path)


@pytest.fixture
def told(capsys, monkeypatch):
    """Return what a command says, with its exit code; no advice that ends a trained run is among it."""
    monkeypatch.setattr(console, "width", 2000)  # no path breaks into lines

    def run(*args):
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in args])
        code = ended.value.code
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert "start over" not in said
        assert "delete the folder" not in said
        return code, said

    return run


def commands(trained):
    run = trained.run.root
    return ("cross-validate", trained.file), ("evaluate", run), ("sync", run), ("report", run)


@pytest.mark.parametrize("keep", [0, 0.3, 0.9])
def test_an_experiment_file_that_broke_off_is_damaged_not_other_settings(trained, told, keep):
    text = trained.run.experiment.read_text()
    trained.run.experiment.write_text(text[: int(keep * len(text))])
    for command in commands(trained)[:2]:
        code, said = told(*command)
        assert code == 1
        assert "experiment.yaml cannot be read" in said
        assert "restore it from a copy" in said


@pytest.mark.parametrize("part", ["preparation", "val"])
def test_a_record_of_the_data_that_lacks_a_part_is_damaged(trained, told, part):
    data = json.loads(trained.run.data.read_text())
    data["splits"] = [{"train": [], "val": []}]
    del (data["digests"] if part == "preparation" else data["splits"][0])[part]
    trained.run.data.write_text(json.dumps(data))
    for command in commands(trained)[:2]:
        code, said = told(*command)
        assert code == 1
        assert "data.json cannot be read" in said


def test_an_edited_experiment_file_is_named_as_such(trained, told):
    text = trained.run.experiment.read_text()
    trained.run.experiment.write_text(text.replace("folds: 2", "folds: 3"))
    for command in commands(trained)[:2]:
        code, said = told(*command)
        assert (code, "were edited" in said, "other settings" in said) == (2, True, False)
        assert "split.folds" in said


def test_without_its_experiment_file_a_run_is_still_a_run(trained, told):
    trained.run.experiment.unlink()
    for command in commands(trained):
        code, said = told(*command)
        assert code == 1, command
        assert "experiment.yaml" in said
        assert "restore it from a copy" in said


def test_other_settings_of_the_experiment_are_refused_without_advice_to_delete(trained, told):
    trained.file.write_text(trained.file.read_text().replace("folds: 2", "folds: 3"))
    code, said = told("cross-validate", trained.file)
    assert (code, "exists with other settings" in said) == (2, True)
    assert "another name" in said


def test_a_finished_fold_without_its_record_is_named_not_dropped(trained, told):
    trained.done.unlink()
    for command in (
        ("evaluate", trained.run.root),
        ("predict", trained.run.root, trained.file.parent / "cases", "out"),
    ):
        code, said = told(*command)
        assert code == 1
        assert "done.json" in said
        assert "cross-validate" in said


def test_tables_that_someone_edited_are_named_before_any_work_and_stay(trained, told):
    root, tables = trained.run.root, trained.run.tables
    with page_outputs(trained.run).noting():  # as an evaluation does
        for name in ("table1", "scores", "scores_summary", "per_case", "table2"):
            write_table(pd.DataFrame({"a": [1, 2]}), tables, name)
    for command in commands(trained)[:2]:
        assert f"{tables}" not in told(*command)[1]
    for name in ("table1", "scores", "scores_summary"):
        with (tables / f"{name}.csv").open("a") as table:
            table.write("mine\n")
    (tables / "epochs.csv").write_text("mine")
    (tables / "table2.csv").unlink()
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    for command in commands(trained)[:2]:
        code, said = told(*command)
        assert code == 2
        assert "(4 problems)" in said
        assert all(f"{tables / name}.csv changed since" in said for name in ("table1", "scores", "scores_summary"))
        assert f"{tables / 'epochs.csv'} a file that uncseg did not write there" in said
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_tables_of_an_earlier_version_are_ours_until_someone_edits_them(trained, told):
    """It did not note what it had written."""
    for name in ("table1", "per_case"):
        write_table(pd.DataFrame({"a": [1, 2]}), trained.run.tables, name)
    for command in commands(trained)[:2]:
        assert f"{trained.run.tables}" not in told(*command)[1]
    with (trained.run.tables / "table1.csv").open("a") as table:
        table.write("mine\n")
    for command in commands(trained)[:2]:
        code, said = told(*command)
        assert (code, "(1 problem)" in said) == (2, True)
        assert f"{trained.run.tables / 'table1.csv'} changed since" in said


def test_tables_of_a_cohort_that_someone_wrote_are_named_and_stay(trained, told, tmp_path):
    names = [f"external_cases{end}" for end in (".csv", "_summary.csv", "_folds.csv", "_cases.csv", "_task.yaml")]
    trained.run.tables.mkdir()
    for name in names:
        (trained.run.tables / name).write_text("mine")
    code, said = told("evaluate", trained.run.root, "--dataset", tmp_path / "cases")
    assert code == 2
    assert "(5 problems)" in said
    assert all(f"{trained.run.tables / name} a file that uncseg did not write there" in said for name in names)
    assert all((trained.run.tables / name).read_text() == "mine" for name in names)
