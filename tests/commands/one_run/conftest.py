"""One small cross-validation, trained once per process, for all tests that only read what was trained.

These tests share a process where several run side by side (``tests/conftest.py``).
"""

import pytest

from support.commands import uncseg
from support.small_experiment import write_small_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.layout import RunFolder
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture(scope="session")
def root(local_ray, tmp_path_factory):
    """Two folds trained for a moment on six cases (``cases``, ``runs/small``), and three other cases (``cohort``)."""
    root = tmp_path_factory.mktemp("trained")
    write_phantoms(root / "cases", cases=6, size=28, seed=0, task=paper_task())
    write_phantoms(root / "cohort", cases=3, size=28, seed=7, task=paper_task())
    training = {"epochs": 20, "iterations_per_epoch": 8, "val_iterations_per_epoch": 2, "checkpoint_every": 10}
    file = write_small_experiment(root, training=training, loss={"warmup_epochs": 10}, evaluation={"last_epochs": 2})
    uncseg("cross-validate", file)
    return root


@pytest.fixture(scope="session")
def run(root):
    """The folder of the trained run; tests must not change it."""
    return RunFolder(root / "runs" / "small")
