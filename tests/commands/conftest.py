"""One small cross-validation for all tests that want something trained."""

import pytest
import yaml

from support.commands import uncseg
from uncseg.dataset.phantom import write_phantoms
from uncseg.layout import RunFolder


@pytest.fixture(scope="session")
def root(local_ray, tmp_path_factory):
    """Two folds trained for a moment on six cases, and a cohort of three others."""
    root = tmp_path_factory.mktemp("predict")
    write_phantoms(root / "cases", cases=6, size=28, seed=0)
    write_phantoms(root / "cohort", cases=3, size=28, seed=7)
    experiment = {
        "name": "small",
        "dataset": {"path": str(root / "cases"), "name": "Small"},
        "split": {"folds": 2},
        "plan": {
            "patch_size": [16] * 3,
            "batch_size": 2,
            "base_features": 4,
            "max_features": 8,
            "max_stages": 2,
            "foreground_samples": 100_000,
        },
        "loss": {"weight_ce": [0.2, 1, 0.2, 1], "warmup_epochs": 10},
        "training": {"epochs": 20, "iterations_per_epoch": 8, "val_iterations_per_epoch": 2},
        "evaluation": {"last_epochs": 2},
        "storage": {"path": str(root / "runs")},
    }
    (root / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    assert uncseg("cross-validate", root / "experiment.yaml") == 0
    return root


@pytest.fixture(scope="session")
def run(root):
    return RunFolder(root / "runs" / "small")
