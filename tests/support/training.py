"""Shared by the tests that train."""

import contextlib

SHORT = {"training": {"epochs": 2, "iterations_per_epoch": 3, "val_iterations_per_epoch": 3}}


def train(trainer):
    """Train to the end without output, and return the metrics of each epoch."""
    with contextlib.redirect_stdout(None):
        trainer.run_training()
    return trainer.epochs
