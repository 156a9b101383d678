"""Files of other people in the folder of a run: a report and a comparison of runs never overwrite or delete them."""

import os
from pathlib import Path

import pytest

import uncseg.console
from support.evaluated_runs import evaluate, write_other, write_run
from uncseg.cli import main
from uncseg.ownership import mark_as_own


@pytest.fixture
def runs(tmp_path, monkeypatch):
    for output in (uncseg.console.console, uncseg.console.errors):
        monkeypatch.setattr(output, "width", 2000)
    first = write_run(tmp_path)
    evaluate(first, tmp_path / "cases")
    return first, write_other(tmp_path, leave_out=())


def ended(*command):
    with pytest.raises(SystemExit) as end:
        main([str(part) for part in command])
    return end.value.code or 0


def test_files_of_others_are_refused_by_name_and_stay(runs, capsys):
    first, other = runs
    command = ("report", first.root, "--cases", 2)
    mine = {
        "tables/table1.tex": command,
        "tables/work_list.csv": command,
        "figures/overlay.png": command,
        "figures/cases/figure1_BraTS-GLI-00000-000.png": command,
        "tables/difference_from_other.csv": ("evaluate", first.root, other.root),
        "tables/difference_from_other.parquet": ("evaluate", first.root, other.root),
        "tables/comparison_small_other_settings.csv": ("report", first.root, other.root, "--cases", 0),
        "report_small_other.html": ("report", first.root, other.root, "--cases", 0),
    }
    for name, refused in mine.items():
        file = first.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        assert ended(*refused) == 2, name
        assert "are not uncseg's to overwrite" in " ".join(capsys.readouterr().err.split())
        assert file.read_text() == "mine"
        file.unlink()


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_links_out_of_a_run_of_others_are_refused_by_name(runs, tmp_path, capsys, link):
    first, other = runs
    (first.tables / "second_name.csv").hardlink_to(first.tables / "scores.csv")
    assert ended("report", first.root, "--cases", 0) == 0
    (other.tables / "scores.parquet").rename(tmp_path / "elsewhere")
    link(other.tables / "scores.parquet", tmp_path / "elsewhere")
    capsys.readouterr()
    for command in (("report", other.root), ("evaluate", first.root, other.root), ("ui", other.root)):
        assert ended(*command) > 0
        assert f"{other.tables / 'scores.parquet'}" in "".join(capsys.readouterr())
    mark_as_own(other.root)
    assert ended("report", other.root, "--cases", 0) == 0


@pytest.mark.parametrize("command", ["report", "sync"])
def test_a_pipe_in_a_run_of_others_is_named_and_not_waited_for(runs, capsys, command):
    _, other = runs
    os.mkfifo(other.data)
    ended(command, other.root)
    said = capsys.readouterr().err.replace("│", " ").replace(": ", " ")
    assert f"{other.data} a pipe or device" in " ".join(said.split())


def test_a_folder_in_place_of_a_file_and_the_reverse_are_named_once(runs, capsys):
    first, other = runs
    report = ("report", first.root, "--cases", 0)
    assert ended(*report) == ended("evaluate", first.root, other.root) == 0
    kinds = {"folder": Path.mkdir, "file": Path.touch}
    places = {
        ("folder", "tables/table1.tex"): report,
        ("folder", "report.html"): report,
        ("folder", "figures/figure2.png"): report,
        ("file", "figures"): report,
        ("file", "tables"): report,
        ("file", "spool"): report,
        ("folder", "tables/scores.parquet"): report,
        ("folder", "tables/difference_from_other.csv"): ("evaluate", first.root, other.root),
        ("folder", "manifest.json"): ("sync", first.root),
        ("folder", "tables/table1.parquet"): ("sync", first.root),
    }
    for (kind, name), command in places.items():
        place, away = first.root / name, first.root.parent / "away"
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(away)
        kinds[kind](place)
        capsys.readouterr()
        assert ended(*command) == (1 if command is report and name == "tables/scores.parquet" else 2), name
        assert capsys.readouterr().err.count(f"{place} ") == 1, name
        place.rmdir() if kind == "folder" else place.unlink()
        if away.exists():
            away.rename(place)
    assert ended(*report) == 0


def test_our_own_are_written_again_until_someone_edits_them(runs, capsys):
    first, other = runs
    command = ("report", first.root, "--cases", 0)
    foreign = first.figures / "cases" / "figure1_mine.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    for _ in range(2):
        assert ended(*command) == 0
        assert ended("evaluate", first.root, other.root) == 0
    assert foreign.read_text() == "mine"
    table = first.tables / "table1.tex"
    edited = table.read_text() + "% mine\n"
    table.write_text(edited)
    capsys.readouterr()
    assert ended(*command) == 2
    assert "are not uncseg's to overwrite" in " ".join(capsys.readouterr().err.split())
    assert table.read_text() == edited
