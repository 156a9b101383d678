"""Two small cross-validations and a small sweep, by the commands themselves, in one MLflow."""

import yaml

from support.commands import run_uncseg
from uncseg.dataset.phantom import write_phantoms

LIMIT_S = 590
DICE, CORR = "val_patch/dice_mean", "uncertainty/union/corr_ema/uncertainty"


def write_study(root):
    """Cases, two experiments that differ in two settings, a sweep; the folder of the runs."""
    write_phantoms(root / "cases", cases=6, size=28, seed=0)
    content = {
        "dataset": {"path": str(root / "cases"), "name": "Small"},
        "split": {"folds": 2},
        "plan": {
            "patch_size": [16, 16, 16],
            "batch_size": 2,
            "base_features": 4,
            "max_features": 8,
            "max_stages": 2,
            "foreground_samples": 100_000,
        },
        "training": {"epochs": 8, "iterations_per_epoch": 4, "val_iterations_per_epoch": 4, "checkpoint_every": 2},
        "evaluation": {"last_epochs": 3},
        "storage": {"path": str(root / "runs")},
    }
    for name, loss in (("paper", {"warmup_epochs": 2}), ("union", {"cancer_mask": "union", "warmup_epochs": 2})):
        weights = {"weight_ce": [0.2, 1, 0.2, 1]} | ({"unc_weight": 0.2} if name == "union" else {})
        file = root / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"name": name, "loss": loss | weights} | content), encoding="utf-8")
    sweep = {
        "name": "search",
        "base": str(root / "paper.yaml"),
        "overrides": {"training.epochs": 2, "loss.warmup_epochs": 0},
        "space": {"loss.unc_weight": {"grid_search": [0.1, 0.4]}, "loss.corr_weight": {"grid_search": [0.2, 0.8]}},
        "trials": 4,
        "objectives": [{"metric": DICE}],
        "search": {"type": "grid"},
        "scheduler": {"type": "fifo"},
    }
    (root / "search.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return root / "runs"


def run_study(root):
    """Run all three; the folder of the runs."""
    runs = write_study(root)
    for command, name in (("cross-validate", "paper"), ("cross-validate", "union"), ("sweep", "search")):
        done = run_uncseg(command, root / f"{name}.yaml", limit_s=LIMIT_S)
        assert done.returncode == 0, done.stdout + done.stderr
    return runs
