"""Two small cross-validations and a small sweep, run by the commands themselves, in one MLflow."""

import yaml

from support.commands import run_uncseg
from support.small_experiment import write_small_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task

DICE, CORR = "val_patch/dice_mean", "uncertainty/union/corr_ema/uncertainty"


def write_study(root):
    """Write cases, two experiments that differ in two settings, and a sweep; return the folder of the runs."""
    write_phantoms(root / "cases", cases=6, size=28, seed=0, task=paper_task())
    training = {"epochs": 8, "val_iterations_per_epoch": 4, "checkpoint_every": 2}
    differences = {"paper": {}, "union": {"cancer_mask": "union", "unc_weight": 0.2}}
    for name, loss in differences.items():
        sections = {"training": training, "evaluation": {"last_epochs": 3}, "loss": loss}
        write_small_experiment(root, f"{name}.yaml", name=name, **sections)
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
    """Run all three, and return the folder of the runs."""
    runs = write_study(root)
    for command, name in (("cross-validate", "paper"), ("cross-validate", "union"), ("sweep", "search")):
        run_uncseg(command, root / f"{name}.yaml", folder=root)
    return runs
