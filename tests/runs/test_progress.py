"""What a fold's worker does besides training: it draws pictures, and times a few steps beforehand."""

import os

import pytest
from PIL import Image

from uncseg.config.experiment import load_experiment
from uncseg.layout import RunFolder
from uncseg.runs.fold_request import FoldRequest, is_done
from uncseg.runs.fold_worker import train_fold
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.step_timing import measure_steps
from uncseg.tracking.spool import read_history


@pytest.fixture
def task(local_ray, experiment_file, four_cases, monkeypatch, request):
    """Fold 1 of a small run of its own, its process's environment put back afterwards."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_n_proc_DA"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    file = experiment_file(four_cases, training={"checkpoint_every": 2}, name=request.node.name)
    experiment = load_experiment(file)
    return FoldRequest(
        experiment.resolved(), prepare_cases(experiment), RunFolder(experiment.run_folder), fold=1, cpus=1
    )


def ignore(_metrics):
    pass


def test_a_picture_after_the_first_epoch_and_at_each_checkpoint(task):
    train_fold(task, ignore)
    files = sorted(task.run.progress.iterdir())
    assert [file.name for file in files] == [f"fold_1_epoch_000{epoch}.png" for epoch in (0, 1, 3)]
    assert len({Image.open(file).size for file in files}) == 1
    assert len({file.read_bytes() for file in files}) == 3


def test_only_rank_zero_of_a_distributed_fold_draws(task):
    train_fold(task, ignore, rank=1)
    assert not task.run.progress.exists()


def test_training_continues_if_a_picture_cannot_be_drawn(task):
    task.run.root.mkdir(parents=True)
    task.run.progress.write_text("no folder")
    train_fold(task, ignore)
    assert is_done(task.run, 1)
    history = read_history(task.run.spool, 1)
    assert (history.state, history.kept_epoch) == ("finished", 3)
    (log,) = task.run.fold(1).glob("training_log*.txt")
    assert "no picture of epoch 3" in log.read_text()


def test_steps_are_timed_before_any_epoch_and_leave_no_file(task):
    timing = measure_steps(task)
    assert min(timing.training_step_s, timing.validation_step_s, timing.checkpoint_bytes) > 0
    assert not task.run.root.exists()
