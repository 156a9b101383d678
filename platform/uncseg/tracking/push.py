"""Push: bring MLflow's runs to what the spool says, each epoch once.

MLflow cannot take a metric back, and a fold that restarts trains the epochs after its last checkpoint again, with
values that need not be equal (nnU-Net's augmentation order is not reproducible). So an epoch is pushed only when no
restart can train it again: when a later checkpoint has been stored, or the fold has finished. The curves lag by at most
one checkpoint interval; the tag ``uncseg.epochs_trained``, which can be overwritten, says how far a fold really is.

Pushed epochs can still become void (a checkpoint turned out unreadable, or a failed fold was resumed after its end had
been shown). Then the run is put into MLflow's bin and created again from the spool.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from mlflow.entities import Metric

from uncseg.layout import RunFolder
from uncseg.tracking.record import MlflowRecord, RunDescription, RunEntry
from uncseg.tracking.shown import between_folds_name, in_order
from uncseg.tracking.spool import EpochRecord, FoldHistory, now_ms
from uncseg.tracking.store import METRICS_PER_CALL, PARENT_TAG, TERMINAL, Store

KEY_TAG = "uncseg.key"
FOLD_TAG = "uncseg.fold"
DATASET_TAG = "dataset_digest"
DIGEST_LENGTH = 12
"""Digits of a dataset's digest that MLflow shows."""
TRAINED_TAG = "uncseg.epochs_trained"
Outcome = Literal["finished", "failed", "interrupted"]
OUTCOME_STATUS: dict[str, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
FOLD_STATUS = OUTCOME_STATUS | {"waiting": "SCHEDULED", "running": "RUNNING", "stopped": "KILLED"}
Histories = Mapping[int, FoldHistory]


@dataclass(frozen=True)
class SyncRound:
    """What one round of the syncer works on; the functions of a round change the record as they go."""

    store: Store
    run: RunFolder
    description: RunDescription
    record: MlflowRecord
    histories: Histories

    @property
    def folds(self) -> list[tuple[RunEntry, FoldHistory]]:
        """The entry and the history of each fold."""
        return [(self.record.folds[fold], history) for fold, history in self.histories.items()]


def pushable_epoch(history: FoldHistory, closing: bool) -> int:
    """Return the last epoch that may go to MLflow, -1 for none. ``closing``: nothing trains any more."""
    return history.last_epoch if closing and history.state in ("failed", "stopped") else history.kept_epoch


def unpushed(record: MlflowRecord, histories: Histories) -> int:
    """Return the number of fold epochs that MLflow could have and does not have."""
    pushed = {fold: record.folds.get(fold, RunEntry()).pushed_epoch for fold in histories}
    last = {fold: pushable_epoch(history, closing=True) for fold, history in histories.items()}
    return sum(pushed[fold] < epoch <= last[fold] for fold, history in histories.items() for epoch in history.epochs)


def drop_void_runs(work: SyncRound) -> None:
    """Replace the entries of runs that show void epochs, and the parent's if its means are over other folds."""
    record, folds = work.record, sorted(work.histories)
    void = [history.fold for entry, history in work.folds if _shows_void_epochs(entry, history)]
    # The parent is first: if a kill comes between the two, the next round still finds the folds void, and the parent.
    if record.parent.pushed_epoch >= 0 and (void or record.parent.averaged_folds != folds):
        record.parent = _replaced(work.store, record.parent)
    for fold in void:
        record.folds[fold] = _replaced(work.store, record.folds[fold])
    record.parent.averaged_folds = folds
    for entry, history in work.folds:
        entry.attempt = history.attempt


def _shows_void_epochs(entry: RunEntry, history: FoldHistory) -> bool:
    later = [first for attempt, first in history.first_epochs.items() if attempt > entry.attempt]
    return any(first <= entry.pushed_epoch for first in later)


def _replaced(store: Store, entry: RunEntry) -> RunEntry:
    if entry.run_id:
        store.delete_run(entry.run_id)
    return RunEntry()


def ensure_runs(work: SyncRound, verify: bool) -> None:
    """Create the runs that MLflow does not have: the parent, and one per fold.

    Params are logged on the parent alone; a fold's run has the number of its fold, so that a search finds each
    experiment once. ``verify``: as for :func:`ensure_run`.
    """
    store, record, name, tags = work.store, work.record, work.description.name, work.description.tags
    starts = [history.first_ms for history in work.histories.values() if history.first_ms is not None]
    parent = record.parent = ensure_run(store, record.parent, name, tags, min(starts, default=None), verify)
    if not parent.has_params:
        store.log_params(parent.run_id, work.description.params)
        if work.description.dataset is not None and DATASET_TAG in tags:
            cases, folder = work.description.dataset
            store.log_dataset(parent.run_id, cases, tags[DATASET_TAG][:DIGEST_LENGTH], folder)
        parent.has_params = True
    for fold, history in work.histories.items():
        fold_tags = {**tags, PARENT_TAG: parent.run_id, FOLD_TAG: str(fold)}
        entry = ensure_run(store, record.folds[fold], f"{name} fold {fold}", fold_tags, history.first_ms, verify)
        record.folds[fold] = entry
        if entry.parent_run_id != parent.run_id:
            store.set_tags(entry.run_id, {PARENT_TAG: parent.run_id})
            store.log_params(entry.run_id, {"fold": str(fold)})
            entry.parent_run_id = parent.run_id


def ensure_run(
    store: Store, entry: RunEntry, name: str, tags: Mapping[str, str], start_ms: int | None, verify: bool = True
) -> RunEntry:
    """Return the entry of a run that MLflow has; the run is created if MLflow does not have it.

    The manifest must hold the entry already: a driver that is killed here finds the run by its key. ``start_ms`` is the
    start of a new run, Unix time in milliseconds; None: now. ``verify`` asks MLflow whether a run created earlier still
    exists; if not, it is created again, from epoch 0.
    """
    if entry.run_id and (not verify or store.has_run(entry.run_id)):
        return entry
    entry = entry.again(start_ms or now_ms())
    found = store.find_run(KEY_TAG, entry.key)
    entry.run_id = found or store.create_run(name, {**tags, KEY_TAG: entry.key}, entry.start_ms)
    return entry


def push_folds(work: SyncRound, closing: bool) -> None:
    """Log every metric of every epoch that may go to MLflow, with its original time, step = epoch."""
    for entry, history in work.folds:
        last = pushable_epoch(history, closing)
        epochs = [epoch for epoch in sorted(history.epochs) if entry.pushed_epoch < epoch <= last]
        _push_rows(work.store, entry, ((epoch, epoch_rows(history.epochs[epoch])) for epoch in epochs))
        trained = history.last_epoch + 1
        if entry.epochs_trained != trained:
            work.store.set_tags(entry.run_id, {TRAINED_TAG: str(trained)})
            entry.epochs_trained = trained


def push_parent(work: SyncRound, closing: bool) -> None:
    """Log mean and standard deviation over folds of every epoch that each fold has reached, or finished before."""
    histories, parent = work.histories, work.record.parent
    reached = [pushable_epoch(history, closing) for history in histories.values()]
    unfinished = [pushable_epoch(history, closing) for history in histories.values() if history.state != "finished"]
    last = min([max(reached, default=-1), *unfinished])
    _push_rows(work.store, parent, ((e, mean_rows(histories, e)) for e in range(parent.pushed_epoch + 1, last + 1)))


def epoch_rows(record: EpochRecord) -> list[Metric]:
    """Return the finite metrics of an epoch that MLflow shows."""
    finite = [name for name, value in record.metrics.items() if math.isfinite(value)]
    return [Metric(name, record.metrics[name], record.time_ms, record.epoch) for name in in_order(finite)]


def final_rows(entry: RunEntry) -> list[Metric]:
    """Return the final figures of a run; the same rows again change nothing in MLflow."""
    return [Metric(name, value, time_ms, 0) for name, (value, time_ms) in entry.final.items()]


def mean_rows(histories: Histories, epoch: int) -> list[Metric]:
    """Return, per metric, the mean over the folds that have a finite value at this epoch, and the standard deviation.

    The deviation is the population's (ddof = 0: these folds are all there are, not a sample of folds). The time is that
    of the last fold to reach the epoch, so that pushing again gives the same rows.
    """
    records = [history.epochs[epoch] for history in histories.values() if epoch in history.epochs]
    rows = []
    for name in in_order(dict.fromkeys(name for record in records for name in record.metrics)):
        values = [value for record in records if math.isfinite(value := record.metrics.get(name, math.nan))]
        if not values:
            continue
        time_ms = max(record.time_ms for record in records)
        rows.append(Metric(name, float(np.mean(values)), time_ms, epoch))
        if (deviation := between_folds_name(name)) is not None:
            rows.append(Metric(deviation, float(np.std(values, ddof=0)), time_ms, epoch))
    return rows


def _push_rows(store: Store, entry: RunEntry, epochs: Iterable[tuple[int, list[Metric]]]) -> None:
    """Log whole epochs, as many per call as MLflow allows, and note the last epoch of each call."""
    batch: list[Metric] = []
    last = entry.pushed_epoch
    for epoch, rows in epochs:
        if batch and len(batch) + len(rows) > METRICS_PER_CALL:
            store.log_metrics(entry.run_id, batch)
            entry.pushed_epoch, batch = last, []
        batch += rows
        last = epoch
    if batch:
        store.log_metrics(entry.run_id, batch)
    entry.pushed_epoch = last


def push_statuses(work: SyncRound, outcome: Outcome | None) -> None:
    """Set the status of each run by the state of its fold. ``outcome``: of the whole run; None while it goes on."""
    for entry, history in work.folds:
        status = FOLD_STATUS[history.state]
        _set_status(work.store, entry, status if outcome is None or status in TERMINAL else "KILLED", history.last_ms)
    ends = [history.last_ms for history in work.histories.values() if history.last_ms is not None]
    status = "RUNNING" if outcome is None else OUTCOME_STATUS[outcome]
    _set_status(work.store, work.record.parent, status, max(ends, default=None))


def _set_status(store: Store, entry: RunEntry, status: str, end_ms: int | None) -> None:
    if entry.status != status:
        store.set_status(entry.run_id, status, end_ms)
        entry.status = status
