"""Shared by the tests that train."""

import contextlib
from pathlib import Path

import pytest
import torch

from uncseg.method.inference.model_folder import open_model_folder
from uncseg.method.inference.predictor import UncertaintyPredictor

SHORT = {"training": {"epochs": 2, "iterations_per_epoch": 3, "val_iterations_per_epoch": 3}}


class Stopped(Exception):
    """Ends a training in the middle."""


def train(trainer):
    """Train to the end without output, and return the metrics of each epoch."""
    with contextlib.redirect_stdout(None):
        trainer.run_training()
    return trainer.epochs


def train_in_two_parts(trainer_for, stop_epoch, **sections):
    """Stop a training in an epoch, and resume it from its latest checkpoint with another trainer; return that one."""
    first = trainer_for("parts", **sections)

    def stop(epoch, _metrics):
        if epoch == stop_epoch:
            raise Stopped

    first.on_epoch = stop
    with pytest.raises(Stopped):
        train(first)
    second = trainer_for("parts", **sections)
    second.load_checkpoint(f"{second.output_folder}/checkpoint_latest.pth")
    assert second.current_epoch == stop_epoch
    train(second)
    return second


def quiet_predictor(**options):
    """Make a predictor on the CPU, without a network."""
    options = {"use_mirroring": False, "perform_everything_on_device": False} | options
    return UncertaintyPredictor(device=torch.device("cpu"), allow_tqdm=False, **options)


def predictor_of_checkpoint(folder, fold=0, **options):
    """Make a predictor with the final checkpoint of a model folder's fold."""
    predictor = quiet_predictor(**options)
    with contextlib.redirect_stdout(None):
        predictor.load_fold(open_model_folder(Path(folder)), fold)
    return predictor
