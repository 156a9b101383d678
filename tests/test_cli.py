"""Wrong input: one table of all problems, the exit code, and no half-written file."""

import gzip
import logging
import re
import shutil
import sys
import unicodedata

import pytest

from uncseg.cli import main
from uncseg.console import console
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture
def uncseg(monkeypatch, capsys):
    """A function that runs the command in this process, and returns its exit code and output."""

    def run(*arguments):
        monkeypatch.setattr(console, "width", 600)  # no cell wraps
        monkeypatch.setattr(sys, "argv", ["uncseg", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, re.sub(r"[│┃\s]+", " ", captured.out + captured.err)

    return run


@pytest.fixture
def cases(tmp_path):
    write_phantoms(tmp_path / "cases", cases=3, size=24, seed=0, task=paper_task())
    return tmp_path / "cases"


def test_check_finds_no_problem_in_clean_cases(uncseg, cases):
    code, text = uncseg("check", cases)
    assert code == 0
    assert "labels of BraTS 2023: 1 NCR, 2 ED, 3 ET (by the names of the files)" in text
    assert text.endswith("3 cases of 3 patients, no problem found ")


def test_check_says_who_is_a_patient(uncseg, cases, tmp_path):
    code, text = uncseg("check", cases)
    assert code == 0
    assert "patients: 3 patients, by the names BraTS-XXX-NNNNN-NNN" in text
    code, text = uncseg("check", cases, "--patients", "(BraTS)")
    assert code == 0
    assert "patients: 1 patient, by the pattern (BraTS)" in text
    assert text.endswith("3 cases of 1 patient, no problem found ")
    (tmp_path / "patients.csv").write_text("case,patient\nBraTS-GLI-00000-000,anna\n")
    code, text = uncseg("check", cases, "--patients", tmp_path / "patients.csv")
    assert code == 2
    assert "no line for BraTS-GLI-00001-000" in text
    assert uncseg("check", cases, "--patients", "(")[0] == 2
    for number, when in ((0, "pre"), (1, "post")):
        old, new = f"BraTS-GLI-0000{number}-000", f"patient1_{when}"
        for file in (cases / old).iterdir():
            file.rename(file.with_name(file.name.replace(old, new)))
        (cases / old).rename(cases / new)
    code, text = uncseg("check", cases)
    assert code == 0
    assert "3 patients, by the names BraTS-XXX-NNNNN-NNN, and 2 cases of other names, each its own" in text
    assert "patient1_post, patient1_pre: names that differ only in a last part, and count as 2 patients" in text
    assert "3 cases of 3 patients, no problem found, 1 warning" in text


def test_check_names_every_problem_in_one_table(uncseg, cases):
    first, second = "BraTS-GLI-00000-000", "BraTS-GLI-00001-000"
    (cases / first / f"{first}-t1n.nii.gz").unlink()
    (cases / second / f"{second}-t2w.nii.gz").write_bytes(gzip.compress(b"not an image"))
    code, text = uncseg("check", cases)
    assert code == 1
    assert "2 problems" in text
    assert f"{first}-t1n.nii.gz" in text
    assert text.count("what to do") == 1


@pytest.mark.parametrize(("make", "code"), [(True, 1), (False, 2)])
def test_check_refuses_an_empty_or_absent_folder(uncseg, tmp_path, make, code):
    if make:
        (tmp_path / "empty").mkdir()
    assert uncseg("check", tmp_path / "empty")[0] == code


@pytest.mark.parametrize("command", ["prepare", "cross-validate"])
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["loss.unc_wieght=0.1", "training.epochs=0"], ["loss.unc_wieght", "training.epochs", "2 problems"]),
        (["split.folds=9"], ["split.folds", "9 folds for 3 patients"]),
        (["dataset.path=nowhere"], ["nowhere"]),
    ],
)
def test_requests_that_cannot_work_are_refused_and_leave_no_file(
    uncseg, cases, experiment_file, tmp_path, local_ray, command, overrides, named
):
    arguments = [part for override in overrides for part in ("--set", override)]
    code, text = uncseg(command, experiment_file(cases), *arguments)
    assert code == 2
    for name in named:
        assert name in text
    assert not [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]


def test_more_gpus_than_the_cluster_has_are_refused(uncseg, cases, experiment_file, local_ray, tmp_path):
    file = experiment_file(cases)
    code, text = uncseg("cross-validate", file, "--set", "resources.gpus_per_fold=1")
    assert code == 2
    assert "resources.gpus_per_fold" in text
    assert "1 GPUs per fold" in text
    assert not (tmp_path / "runs" / "small").exists()


def test_folds_that_do_not_exist_are_refused(uncseg, cases, experiment_file):
    file = experiment_file(cases)
    assert uncseg("cross-validate", file, "--folds", "0,7")[0] == 2
    assert uncseg("cross-validate", file, "--folds", "one")[0] == 2


def test_dry_run_prints_the_plan_and_trains_nothing(uncseg, cases, experiment_file, local_ray, tmp_path):
    code, text = uncseg("cross-validate", experiment_file(cases), "--dry-run")
    assert code == 0
    assert "folds 0, 1, 4 epochs each" in text
    assert not (tmp_path / "runs" / "small").exists()


def test_evaluating_and_syncing_what_is_no_run_is_refused(uncseg, tmp_path):
    for command in ("evaluate", "sync"):
        code, text = uncseg(command, tmp_path)
        assert code == 2
        assert "experiment.yaml" in text


def test_phantoms_leave_other_files_alone(uncseg, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    code, text = uncseg("phantom", tmp_path, "--cases", "1", "--size", "24")
    assert code == 2
    assert "another folder" in text
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("option", "value"), [("--convention", "2018"), ("--patients", "(BraTS)")])
def test_what_is_said_of_another_cohort_needs_one(uncseg, tmp_path, option, value):
    code, text = uncseg("evaluate", tmp_path / "run", option, value)
    assert code == 2
    assert option in text
    assert "--dataset" in text


def test_names_are_printed_as_they_are(uncseg, cases):
    first = "BraTS-GLI-00000-000"
    shutil.copy(cases / first / f"{first}-t1n.nii.gz", cases / first / "[bold]1:art:.nii.gz")
    code, text = uncseg("check", cases)
    assert code == 0
    assert "1 other image file in the cases' folders: not used ([bold]1:art:.nii.gz)" in text


OBEYED = "\x1b]52;c;AAAA\x07\x9b2J\x08\r\x7f"
"""What a terminal would obey: the clipboard set, the screen cleared, letters overwritten."""


def test_names_of_files_cannot_steer_a_terminal(uncseg, tmp_path):
    (tmp_path / f"BraTS-GLI-00000-000{OBEYED}-t1n.nii.gz").touch()
    _, said = uncseg("check", tmp_path)
    assert "\N{REPLACEMENT CHARACTER}]52;c;AAAA" in said
    assert not [sign for sign in said if unicodedata.category(sign) == "Cc"]


def test_neither_can_what_is_logged(capsys):
    logging.getLogger("uncseg.tracking.uploads").warning("%s leads out of the run", f"name{OBEYED}")
    said = capsys.readouterr().err
    assert said.endswith("leads out of the run\n")
    assert not [sign for sign in said[:-1] if unicodedata.category(sign) == "Cc"]
