"""Heads that learn from a finished run: from its members, or from what its folds have learnt of failures."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from support.commands import uncseg
from uncseg.config.experiment import load_experiment
from uncseg.errors import ProblemsFound
from uncseg.layout import RunFolder
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.fold_worker import load_error_source
from uncseg.runs.run_that_teaches import keep_what_taught
from uncseg.tracking.spool import read_history

ONE_STEP = ("training.epochs=1", "training.iterations_per_epoch=1", "loss.warmup_epochs=0")
ENTROPY = ("loss.entropy_weight=1", "loss.unc_weight=0", "loss.rmsd_weight=0", "loss.corr_weight=0")


def options(*settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def teaching(root, tmp_path_factory):
    """A folder with a run of two members whose folds have learnt from each other's failures."""
    folder = tmp_path_factory.mktemp("teaching")
    shutil.copytree(root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow*", "small"))
    steps = "training.epochs=8", "training.members=2", "failures.trees=20", "model.uncertainty=false"
    place = "name=teaching", f"storage.path={folder / 'runs'}", "loss.warmup_epochs=0"
    uncseg("cross-validate", folder / "experiment.yaml", *options(*steps, *place))
    return folder


def request_of(teaching, source, fold):
    settings = f"memory={{source: {source}, run: teaching}}", f"storage.path={teaching / 'runs'}", "name=pupil"
    experiment = load_experiment(teaching / "experiment.yaml", list(settings))
    return FoldRequest(experiment, None, RunFolder(experiment.run_folder), fold, cpus=1)


@pytest.mark.parametrize("fold", [0, 1])
def test_a_fold_learns_from_the_same_fold(teaching, fold):
    """Of another fold the networks would have seen its cases, and what that has learnt would hold their references."""
    run, before = RunFolder(teaching / "runs" / "teaching"), torch.random.get_rng_state()
    pupil = SimpleNamespace()
    load_error_source(request_of(teaching, "members", fold), pupil)
    assert torch.equal(torch.random.get_rng_state(), before), "a resumed training goes on with its random numbers"
    assert len(pupil.error_source.networks) == 2
    for number, network in enumerate(pupil.error_source.networks):
        kept = torch.load(run.member(number).final_checkpoint(fold), weights_only=False)["network_weights"]
        torch.testing.assert_close(dict(network.state_dict()), dict(kept), rtol=0, atol=0)
    load_error_source(request_of(teaching, "cross_fitted", fold), pupil)
    expected = json.loads((run.fold(fold) / "failures.json").read_text())["calibrations"]
    assert [vars(numbers) for numbers in pupil.error_source.learnt.calibrations] == expected
    assert pupil.error_source.learnt.trees


@pytest.mark.parametrize("source", ["members", "cross_fitted"])
def test_a_head_does_not_go_on_with_another_teacher(teaching, tmp_path, source):
    """Half of it would be learnt from one run, and half from another."""
    run = RunFolder(tmp_path / "teaching")
    shutil.copytree(teaching / "runs" / "teaching", run.root)
    request = request_of(teaching, source, 0)
    request = replace(request, run=RunFolder(tmp_path / "pupil"))
    folder = request.run.results / "Dataset" / "Trainer" / "fold_0"
    folder.mkdir(parents=True)
    keep_what_taught(run, source, request, begun=False)
    keep_what_taught(run, source, request, begun=True)
    if source == "members":
        shutil.copy(run.final_checkpoint(0), run.member(1).final_checkpoint(0))
        found = "member 1"
    else:
        shutil.copy(run.learnt_failures(1), run.learnt_failures(0))
        found = "failures.pth"
    with pytest.raises(ProblemsFound, match=f"another {found}"):
        keep_what_taught(run, source, request, begun=True)
    keep_what_taught(run, source, request, begun=False)  # a fold that starts over learns from what is there
    keep_what_taught(run, source, request, begun=True)


@pytest.mark.parametrize("source", ["members", "cross_fitted"])
def test_a_head_learns_from_its_first_step_what_another_run_says(teaching, source):
    """The memory is empty then: from it the head would learn nothing, and the term would be 0."""
    taught = f"memory={{source: {source}, run: teaching}}"
    storage, name = f"storage.path={teaching / 'runs'}", f"name=from_{source}"
    uncseg("cross-validate", teaching / "experiment.yaml", *options(name, storage, taught, *ENTROPY, *ONE_STEP))
    run = RunFolder(teaching / "runs" / f"from_{source}")
    for fold in (0, 1):
        metrics = read_history(run.spool, fold).epochs[0].metrics
        assert 0.05 < metrics["train/loss_entropy"] < 5
        assert metrics["train/loss"] == pytest.approx(metrics["train/loss_seg"] + metrics["train/loss_entropy"])
    maps = sorted(run.out_of_fold.glob("*_uncertainty.nii.gz"))
    assert len(maps) == 6
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(maps[0])))
    assert 0 <= values.min() <= values.max() <= 1
    assert np.isfinite(values).all()


def test_a_run_that_cannot_teach_is_refused_before_anything_is_trained(teaching):
    of = "name=pupil", f"storage.path={teaching / 'runs'}", *ENTROPY, *ONE_STEP
    for run, found in (("absent", "no such run"), ("pupil", "no such run")):
        taught = f"memory={{source: members, run: {run}}}"
        said = uncseg("cross-validate", teaching / "experiment.yaml", *options(*of, taught), code=2)
        assert "memory.run" in said
        assert found in said
    assert not (teaching / "runs" / "pupil").exists()
