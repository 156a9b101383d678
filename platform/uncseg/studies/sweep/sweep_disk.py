"""What a sweep's trials will take of the disk."""

from pathlib import Path

from uncseg.config.experiment import Experiment
from uncseg.console import console
from uncseg.layout import PreparedFolder
from uncseg.runs.disk_plan import estimate_disk, print_disk, size_text
from uncseg.studies.sweep.sweep_file import Sweep


def print_sweep_disk(sweep: Sweep, base: Experiment, prepared: PreparedFolder, root: Path) -> None:
    """Print what a sweep's trials will take of the disk, while it searches and after it."""
    disk, folds = estimate_disk(base, prepared), len(sweep.folds)
    promoted = (sweep.promote.top if sweep.promote else 0) * len(sweep.promoted_folds(base))
    # trials that have ended wait for the end of the sweep; while one trains it has a file or two more
    trained = sweep.trials * folds + promoted
    print_disk(disk, disk.kept * trained + (disk.training - disk.kept) * folds, trained, root)
    after = f"all {sweep.trials} trials"
    if sweep.keep_checkpoints == "best":
        after = "the best trial" + ", the front's" * (len(sweep.objectives) > 1) + ", the promoted" * bool(promoted)
    console.print(f"kept:     checkpoints of {after}, {size_text(disk.kept)} a fold; MLflow gets none", soft_wrap=True)
