"""``uncseg sync``: MLflow as the folder of a run or a sweep says."""

from pathlib import Path

from uncseg.commands.sweep_run import sync_sweep
from uncseg.layout import SweepFolder
from uncseg.tracking.sync import sync_run


def sync_folder(root: Path, tracking_uri: str | None = None) -> int:
    """Push what MLflow has not; the number of epochs and uploads that are left.

    Args:
        root: folder of a run or a sweep.
        tracking_uri: another MLflow than the experiment's.

    Raises:
        ProblemsFound: it is neither, or MLflow cannot be reached.
    """
    return (sync_sweep if SweepFolder(root).content.is_file() else sync_run)(root, tracking_uri)
