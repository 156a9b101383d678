"""The sentences on batches that trainings have left out."""

import pytest

from uncseg.config.experiment import load_experiment
from uncseg.layout import RunFolder
from uncseg.metric_keys import SKIPPED_BATCHES, SKIPPED_BY_LOSS_SCALE, SKIPPED_STEPS
from uncseg.report.skipped import skipped_lines
from uncseg.tracking.spool import SpoolWriter

TRAINING = {"epochs": 4, "iterations_per_epoch": 250, "val_iterations_per_epoch": 1}


@pytest.fixture
def experiment(experiment_file, tmp_path):
    sections = {"training": {**TRAINING, "members": 2}, "evaluation": {"estimators": {"deep_ensemble": True}}}
    return load_experiment(experiment_file(tmp_path / "cases", **sections))


def write(folder, fold, *epochs, first_epoch=0):
    """Write epochs, each given as skipped steps, those by the loss scale, and skipped validation batches."""
    spool = SpoolWriter(folder.spool, fold, first_epoch=first_epoch)
    for epoch, counts in enumerate(epochs, start=first_epoch):
        spool.epoch(epoch, dict(zip((SKIPPED_STEPS, SKIPPED_BY_LOSS_SCALE, SKIPPED_BATCHES), counts, strict=True)))
    return spool


def test_nothing_is_said_before_a_training_or_where_nothing_was_skipped(tmp_path, experiment):
    run = RunFolder(tmp_path / "run")
    assert skipped_lines(run, experiment) == []
    write(run, 0, (0, 0, 0), (0, 0, 0))
    assert skipped_lines(run, experiment) == []


def test_each_fold_and_member_says_count_share_and_cause(tmp_path, experiment):
    run = RunFolder(tmp_path / "run")
    write(run, 0, (3, 3, 0), (0, 0, 0), (1, 0, 0))
    write(run, 1, (0, 0, 0), (0, 0, 1))
    write(run.member(1), 1, (2, 0, 0))
    log = "folds/fold_0/console.log"
    assert skipped_lines(run, experiment) == [
        "Fold 0: 4 of 750 training steps (0.53 %) without effect, 1 because loss or gradient was not finite "
        f"(cases: {log}); 3 while fp16 adapted its loss scale, as is usual when a training starts.",
        "Fold 1: 1 of 2 validation batches (50 %) left out, because predictions were not finite "
        "(cases: folds/fold_1/console.log).",
        "Fold 1 of member 1: 2 of 250 training steps (0.8 %) without effect, 2 because loss or gradient was not finite "
        "(cases: members/1/folds/fold_1/console.log).",
    ]


def test_epochs_that_were_trained_again_count_once(tmp_path, experiment):
    run = RunFolder(tmp_path / "run")
    write(run, 0, (1, 0, 0), (5, 0, 0))
    write(run, 0, (2, 0, 0), first_epoch=1)
    (line,) = skipped_lines(run, experiment)
    assert "3 of 500 training steps (0.6 %)" in line
