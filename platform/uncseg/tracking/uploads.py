"""Uploads: results that MLflow shows: final figures, tables, pictures, report, epoch tables.

Each is logged once; again only when the file has changed. The manifest's entry of a run remembers size and time.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from mlflow.entities import Metric

from uncseg.files import digest
from uncseg.layout import RunFolder
from uncseg.tracking.final_figures import describe, final_figures
from uncseg.tracking.push import Histories
from uncseg.tracking.record import MlflowRecord, RunEntry
from uncseg.tracking.spool import epoch_table, now_ms
from uncseg.tracking.store import NOTE_TAG, Store

PROGRESS_KEY = "one case over training"


def files_to_show(run: RunFolder, extra: Iterable[Path] = ()) -> list[tuple[Path, str | None]]:
    """Files of the whole run and the artifact folder of each (None: the root); those that exist."""
    pages = sorted(run.root.glob("report*.html"))
    shown: list[tuple[Path, str | None]] = [(run.experiment, None), *((page, None) for page in pages)]
    for folder in (run.tables, run.figures):
        files = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
        shown += [(path, path.parent.relative_to(run.root).as_posix()) for path in files]
    shown += [(Path(path), None) for path in extra]
    return [(path, folder) for path, folder in shown if path.is_file()]


def upload_files(store: Store, record: MlflowRecord, run: RunFolder) -> None:
    """Log the run's own files on the parent."""
    for path, folder in files_to_show(run, map(Path, record.extra)):
        _log_changed(store, record.parent, path, folder)


def upload_results(store: Store, record: MlflowRecord, run: RunFolder) -> None:
    """Log the final figures of the run and of each fold, and the run's description.

    The same ones again change nothing: they keep the time at which they were first seen.
    """
    figures = final_figures(run)
    if not figures.run:
        return
    if record.final != figures:
        record.final, record.final_ms = figures, now_ms()
    shown = [(record.parent, figures.run)]
    shown += [(record.folds[fold], values) for fold, values in figures.folds.items() if fold in record.folds]
    for entry, values in shown:
        store.log_metrics(entry.run_id, [Metric(name, value, record.final_ms, 0) for name, value in values.items()])
    parent = record.parent
    text = describe(run, store.run_page(parent.run_id))
    if text is not None and parent.files.get("description") != digest(text):
        store.set_tags(parent.run_id, {NOTE_TAG: text})
        parent.files["description"] = digest(text)


def upload_progress(store: Store, record: MlflowRecord, run: RunFolder, histories: Histories) -> None:
    """Log each fold's pictures of its training that no restart draws again, as images with step = epoch."""
    for fold, history in histories.items():
        entry = record.folds[fold]
        for path in sorted(run.progress.glob(f"fold_{fold}_epoch_*.png")):
            epoch = int(path.stem.rpartition("_")[2])
            if epoch <= history.kept_epoch and entry.files.get(path.name) != _signature(path):
                signature = _signature(path)
                store.log_image(entry.run_id, path, PROGRESS_KEY, epoch, history.epochs[epoch].time_ms)
                entry.files[path.name] = signature


def upload_folds(store: Store, record: MlflowRecord, run: RunFolder, histories: Histories) -> None:
    """Log each ended fold's table of epochs."""
    for fold, history in histories.items():
        entry = record.folds[fold]
        if history.state in ("finished", "failed") and entry.files.get("epochs") != history.offset:
            _log_epochs(store, entry, run, fold)
            entry.files["epochs"] = history.offset


def _log_changed(store: Store, entry: RunEntry, path: Path, folder: str | None) -> None:
    name = f"{folder}/{path.name}" if folder else path.name
    if entry.files.get(name) != _signature(path):
        signature = _signature(path)
        store.log_file(entry.run_id, path, folder)
        entry.files[name] = signature


def _signature(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _log_epochs(store: Store, entry: RunEntry, run: RunFolder, fold: int) -> None:
    table = epoch_table(run.spool)
    table = table[table["fold"] == fold].dropna(axis="columns", how="all")
    with tempfile.TemporaryDirectory() as temporary:
        parquet, csv = Path(temporary, "epochs.parquet"), Path(temporary, "epochs.csv")
        table.to_parquet(parquet, index=False)
        table.to_csv(csv, index=False)
        for path in (parquet, csv):
            store.log_file(entry.run_id, path)
