"""``uncseg sweep`` over what the folds of a finished run learn from failures: trials, figures, and the run itself."""

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from support.commands import start_uncseg, uncseg
from uncseg.files import read_json
from uncseg.layout import RunFolder
from uncseg.tracking.spool import read_history

SETTINGS = {"failures.steps": 12, "failures.features": 4, "failures.initial_lr": 0.01}
KINDS = {"auprc": 1, "brier": -1, "ece": -1, "corr": 1}


def digests(run):
    """What the run holds, but for what its folds keep for each other."""
    files = (path for path in run.root.rglob("*") if path.is_file() and "failures" not in path.parts)
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if not path.name.endswith(".lock")}


def write_sweep(folder, base, **fields):
    content = {
        "name": "learning",
        "base": str(base),
        "overrides": {"storage.path": str(folder / "runs")} | SETTINGS,
        "space": {"failures.evidence": {"grid_search": ["failure", "region"]}},
        "folds": [0, 1],
        "trials": 2,
        "objectives": [{"metric": "failures/brier_lead"}, {"metric": "failures/auprc"}],
        "search": {"type": "grid"},
        "scheduler": {"type": "fifo"},
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content | fields), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def searched(root, tmp_path_factory):
    """A copy of the trained run, the folder of a sweep over its failures, what the command said, what it changed."""
    folder = tmp_path_factory.mktemp("failure_sweep")
    shutil.copytree(root / "runs", folder / "runs", ignore=shutil.ignore_patterns("mlflow*"))
    copied = RunFolder(folder / "runs" / "small")
    before = digests(copied)
    said = uncseg("sweep", write_sweep(folder, root / "experiment.yaml"))
    return copied, folder / "runs" / "learning", said, before == digests(copied)


def test_each_trial_has_the_figures_of_its_cases(searched):
    _, sweep, _, unchanged = searched
    assert unchanged, "a sweep looks at a run"
    trials = pd.read_parquet(sweep / "tables/trials.parquet").set_index("trial")
    cases = pd.read_parquet(sweep / "tables/cases.parquet")
    assert sorted(trials["failures.evidence"]) == ["failure", "region"]
    assert set(trials["state"]) == {"finished"}
    assert cases.groupby("trial")["case"].nunique().tolist() == [6, 6]
    by_map = cases.set_index(["trial", "map", "fold", "case"])[list(KINDS)]
    floors = [by_map.xs((trial, "calibrated"), level=("trial", "map")) for trial in trials.index]
    pd.testing.assert_frame_equal(*floors)
    for trial in trials.index:
        learnt = by_map.xs((trial, "cross_fitted"), level=("trial", "map"))
        for fold in (0, 1):
            (told,) = read_history(RunFolder(sweep / "trials" / trial).spool, fold).epochs.values()
            means, leads = learnt.loc[fold].mean(), (learnt - floors[0]).loc[fold].mean()
            assert told.metrics == pytest.approx(
                {f"failures/{kind}": means[kind] for kind in KINDS}
                | {f"failures/{kind}_lead": sign * leads[kind] for kind, sign in KINDS.items()}
            )
        assert trials.loc[trial, "failures/auprc"] == pytest.approx(learnt.groupby("fold")["auprc"].mean().mean())
    first, second = (by_map.xs((trial, "cross_fitted"), level=("trial", "map")) for trial in trials.index)
    assert not np.allclose(first, second), "the settings reach the networks"


def test_the_run_learns_the_same_with_the_values_of_a_trial(searched):
    """The trial ranks voxels as the run's own table says; that counts easy voxels beyond the grid's end as well."""
    copied, sweep, said, _ = searched
    trials = pd.read_parquet(sweep / "tables/trials.parquet")
    (line,) = [line for line in said.splitlines() if line.startswith("for the run itself: uncseg evaluate")]
    uncseg(*shlex.split(line.partition("uncseg ")[2]))  # as it is printed
    per_case = pd.read_parquet(copied.tables / "per_case.parquet").set_index("case")
    cases = pd.read_parquet(sweep / "tables/cases.parquet").set_index("case")
    cases = cases[cases["trial"] == trials.loc[0, "trial"]]
    for name in ("cross_fitted", "calibrated"):
        own = cases[cases["map"] == name]
        np.testing.assert_allclose(own["auprc"], per_case.loc[own.index, f"{name}/union/auprc_failure"], atol=0.006)


def test_the_command_given_again_trains_nothing(searched, root):
    _, sweep, _, _ = searched
    before = {file: file.stat().st_mtime_ns for file in sweep.glob("trials/*/folds/**/*.json")}
    assert len(before) >= 4
    uncseg("sweep", write_sweep(sweep.parent.parent, root / "experiment.yaml"))
    assert before == {file: file.stat().st_mtime_ns for file in sweep.glob("trials/*/folds/**/*.json")}


@pytest.mark.parametrize("change", ["failures.steps=13", "evaluation.mirroring=true"])
def test_trials_of_other_settings_do_not_come_into_the_same_table(searched, root, change):
    _, sweep, _, _ = searched
    said = uncseg("sweep", write_sweep(sweep.parent.parent, root / "experiment.yaml"), "--set", change, code=2)
    assert change.partition("=")[0] in " ".join(said.split())


def test_a_run_that_has_not_finished_has_no_failures_to_learn_from(root, tmp_path):
    said = uncseg("sweep", write_sweep(tmp_path, root / "experiment.yaml"), code=2)
    assert "There are no failures to learn from yet" in said
    assert "no run" in said
    assert "train it first" in said


def test_a_run_of_other_settings_is_not_taken_for_the_bases(searched, root):
    copied, _, _, _ = searched
    overrides = {"storage.path": str(copied.root.parent), "training.weight_decay": 0.001} | SETTINGS
    file = write_sweep(copied.root.parent.parent, root / "experiment.yaml", name="other", overrides=overrides)
    said = " ".join(uncseg("sweep", file, code=2).split())
    assert "training.weight_decay" in said
    assert "exists with other settings" in said


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(root, tmp_path):
    """Also the fold that was at work ends bit for bit as in an undisturbed sweep."""
    overrides = {"storage.path": str(tmp_path / "runs")} | SETTINGS
    overrides |= {"failures.steps": 160, "failures.checkpoint_every": 20}
    shutil.copytree(root / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("mlflow*"))
    space, found = {"failures.evidence": {"grid_search": ["region"]}}, []
    for name in ("undisturbed", "disturbed"):
        fields = {"name": name, "overrides": overrides, "space": space, "trials": 1}
        command = start_uncseg(
            "sweep", write_sweep(tmp_path, root / "experiment.yaml", **fields), log=tmp_path / f"{name}.log"
        )
        trials = tmp_path / "runs" / name / "trials"
        if name == "disturbed":
            command.wait_until(lambda trials=trials: any(trials.glob("*/folds/**/fold_1/failures_latest.pth")))
            (worker,) = processes_called(b"ray::ImplicitFunc")
            os.kill(worker, signal.SIGKILL)
        command.require()
        found.append([read_json(file)["rows"] for file in sorted(trials.glob("*/folds/**/failure_scores.json"))])
        attempts = [read_history(next(trials.iterdir()) / "spool", fold).attempt for fold in (0, 1)]
        assert attempts == [1, 2 if name == "disturbed" else 1]
    assert found[0] == found[1]
    assert len(found[0]) == 2


def processes_called(name):
    """Return the ids of processes whose command begins with a name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(name):
                found.append(int(process.name))
    return found
