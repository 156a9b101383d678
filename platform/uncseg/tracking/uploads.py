"""Uploads: the results that MLflow shows: final figures, tables, pictures, report, tables of epochs.

Each is logged once, and again only when it has changed; the entry of its run remembers the signature.
"""

import itertools
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
from mlflow.entities import Metric

from uncseg.errors import DamagedFile
from uncseg.files import digest, read_json
from uncseg.layout import FAILURES_RECORD
from uncseg.ownership import holds
from uncseg.table_files import write_table
from uncseg.tracking.final_figures import describe, final_figures
from uncseg.tracking.push import SyncRound, final_rows
from uncseg.tracking.spool import epoch_table
from uncseg.tracking.store import NOTE_TAG

logger = logging.getLogger(__name__)
PROGRESS_KEY = "one case over training"
LEARNING = "failures/loss"
LEARNING_POINTS = 100
"""Points of a failure network's curve at most."""


def upload_files(work: SyncRound) -> None:
    """Log experiment, reports, tables and figures on the parent, each in the artifact folder of the same name.

    Only files of the run itself are: a link may lead to any file of this machine.
    """
    run, parent = work.run, work.record.parent
    shown = [run.experiment, *run.root.glob("report*.html"), *run.tables.rglob("*"), *run.figures.rglob("*")]
    for path in sorted(path for path in shown if path.is_file() and not path.name.startswith(".")):
        if not is_own_file(run.root, path):
            continue
        name = path.relative_to(run.root)
        folder = name.parent.as_posix() if name.parent.name else None
        parent.upload_once(name.as_posix(), _signature(path), work.store.log_file, parent.run_id, path, folder)


def upload_results(work: SyncRound) -> None:
    """Log the final figures of the run and of each fold, and the run's description."""
    figures, record, parent = final_figures(work.run), work.record, work.record.parent
    if not figures.run:
        return
    shown = [(parent, figures.run)]
    shown += [(record.folds[fold], values) for fold, values in figures.folds.items() if fold in record.folds]
    for entry, values in shown:
        entry.set_final(values)
    record.write(work.run.manifest)  # a command that is killed below logs the same rows the next time
    for entry, _ in shown:
        work.store.log_metrics(entry.run_id, final_rows(entry))
    if (text := describe(work.run, work.store.run_page(parent.run_id))) is not None:
        parent.upload_once("description", digest(text), work.store.set_tags, parent.run_id, {NOTE_TAG: text})


def upload_progress(work: SyncRound) -> None:
    """Log each fold's pictures of epochs that no restart trains again, as images with step = epoch."""
    for entry, history in work.folds:
        for path in sorted(work.run.progress.glob(f"fold_{history.fold}_epoch_*.png")):
            epoch = int(path.stem.rpartition("_")[2])
            if epoch <= history.kept_epoch and is_own_file(work.run.root, path):
                arguments = (entry.run_id, path, PROGRESS_KEY, epoch, history.epochs[epoch].time_ms)
                entry.upload_once(path.name, _signature(path), work.store.log_image, *arguments)


def upload_folds(work: SyncRound) -> None:
    """Log the table of epochs of each fold that has ended."""
    for entry, history in work.folds:
        if history.state in ("finished", "failed"):
            entry.upload_once("epochs", history.offset, _log_epochs, work, entry.run_id, history.fold)


def upload_learning(work: SyncRound) -> None:
    """Log the loss of each fold's failure network, one value per hundredth of its steps."""
    for fold, entry in work.record.folds.items():
        file = work.run.fold(fold) / FAILURES_RECORD
        if file.is_file() and is_own_file(work.run.root, file) and (losses := _losses(file)) is not None:
            rows = _learning_rows(losses, file.stat().st_mtime_ns // 10**6)
            # by content: a copy has another time
            entry.upload_once(FAILURES_RECORD, digest(losses.tolist()), work.store.log_metrics, entry.run_id, rows)


def _losses(file: Path) -> np.ndarray | None:
    """Return the loss of each step, (steps,); None without steps, or of a record that is damaged."""
    try:
        losses = np.asarray(read_json(file, keys=["losses"])["losses"], float).reshape(-1)
    except (DamagedFile, ValueError, TypeError):
        return None
    return losses if losses.size else None


def _learning_rows(losses: np.ndarray, time_ms: int) -> list[Metric]:
    """Return the mean loss of each hundredth of the steps, at its last step."""
    ends = np.unique(np.linspace(0, len(losses), LEARNING_POINTS + 1).round().astype(int))
    means = {int(end): float(losses[start:end].mean()) for start, end in itertools.pairwise(ends)}
    return [Metric(LEARNING, mean, time_ms, step) for step, mean in means.items() if math.isfinite(mean)]


def is_own_file(root: Path, path: Path) -> bool:
    """Return whether a file belongs to a run or a study; where a link leads out of it, say that it is left out."""
    if holds(root, path):
        return True
    logger.warning("%s leads out of %s, and is left out; if you trust that, copy it with cp -rL", path, root)
    return False


def _signature(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _log_epochs(work: SyncRound, run_id: str, fold: int) -> None:
    table = epoch_table(work.run.spool)
    table = table[table["fold"] == fold].dropna(axis="columns", how="all")
    with tempfile.TemporaryDirectory() as temporary:
        write_table(table, Path(temporary), "epochs")
        for path in Path(temporary).iterdir():
            work.store.log_file(run_id, path)
