"""The small experiment of the tests: two folds, a network of two stages, patches of 16³, trained in seconds."""

from pathlib import Path

import yaml

SMALL = {
    "name": "small",
    "dataset": {"path": "cases", "name": "Small"},
    "split": {"folds": 2},
    "plan": {
        "patch_size": [16, 16, 16],
        "batch_size": 2,
        "base_features": 4,
        "max_features": 8,
        "max_stages": 2,
        "foreground_samples": 100_000,  # nnU-Net's own number would take most of the tests' time
    },
    "loss": {"weight_ce": [0.2, 1, 0.2, 1], "warmup_epochs": 2},
    "training": {"epochs": 4, "iterations_per_epoch": 4, "val_iterations_per_epoch": 2, "checkpoint_every": 1},
    "storage": {"path": "runs"},
}


def small_experiment(root, /, **sections):
    """Return the content of an experiment file: cases in ``root/cases``, runs in ``root/runs``.

    Args:
        root: the folder that holds both.
        sections: fields of a section that are added or replaced (``loss={"warmup_epochs": 0}``), or the value of a
            field at the top level (``name="other"``).
    """
    folders = {"dataset": {"path": str(root / "cases")}, "storage": {"path": str(root / "runs")}}
    return merge(merge(SMALL, folders), sections)


def write_small_experiment(root, /, file="experiment.yaml", **sections):
    """Write the experiment of :func:`small_experiment` to a file below ``root``, and return its path."""
    path = Path(root, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(small_experiment(Path(root), **sections), sort_keys=False), encoding="utf-8")
    return path


def merge(content, more):
    """Return ``content`` with each section's fields replaced by those of ``more``."""
    merged = dict(content)
    for name, value in more.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    return merged
