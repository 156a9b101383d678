"""Push: bring MLflow's runs to what the spool says, each epoch once.

MLflow cannot take a metric back, and a fold that restarts trains the epochs after its last checkpoint again, with
values that need not be equal (nnU-Net's augmentation order is not reproducible). So an epoch is pushed only when no
restart can train it again: when a later checkpoint has been stored, or the fold has finished. The curves lag by at most
one checkpoint interval; the tag ``uncseg.epochs_trained``, which can be overwritten, tells how far a fold really is.

Should epochs be void all the same after they were pushed (a checkpoint that turned out unreadable, a failed fold that
was taken up again after its end had been shown), the run is put into MLflow's bin and made anew from the spool.

"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from mlflow.entities import Metric

from uncseg.tracking.record import MlflowRecord, RunDescription, RunEntry
from uncseg.tracking.shown import between_folds_name, in_order
from uncseg.tracking.spool import EpochRecord, FoldHistory, now_ms
from uncseg.tracking.store import METRICS_PER_CALL, PARENT_TAG, TERMINAL, Store

KEY_TAG = "uncseg.key"
FOLD_TAG = "uncseg.fold"
DATASET_TAG = "dataset_digest"
DIGEST_LENGTH = 12  # that of a dataset in MLflow is short
TRAINED_TAG = "uncseg.epochs_trained"
FOLD_STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
}
Outcome = Literal["finished", "failed", "interrupted"]
OUTCOME_STATUS: dict[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
Histories = Mapping[int, FoldHistory]


def pushable_epoch(history: FoldHistory, closing: bool) -> int:
    """The last epoch that may go to MLflow, -1 for none. ``closing``: nobody trains any more."""
    return history.last_epoch if closing and history.state in ("failed", "stopped") else history.kept_epoch


def unpushed(record: MlflowRecord, histories: Histories) -> int:
    """Number of fold epochs that MLflow could have and has not."""
    count = 0
    for fold, history in histories.items():
        pushed = record.folds.get(fold, RunEntry()).pushed_epoch
        count += sum(pushed < epoch <= pushable_epoch(history, closing=True) for epoch in history.epochs)
    return count


def drop_void_runs(store: Store, record: MlflowRecord, histories: Histories) -> None:
    """Replace the entries of runs that show void epochs, and the parent's where its means are of other folds."""
    void = [fold for fold, history in histories.items() if _shows_void_epochs(record.folds[fold], history)]
    folds = sorted(histories)
    # the parent first: killed between the two, the folds are still found void next time, and the parent with them
    if record.parent.pushed_epoch >= 0 and (void or record.parent.averaged_folds != folds):
        record.parent = _replaced(store, record.parent)
    for fold in void:
        record.folds[fold] = _replaced(store, record.folds[fold])
    record.parent.averaged_folds = folds
    for fold, history in histories.items():
        record.folds[fold].attempt = history.attempt


def _shows_void_epochs(entry: RunEntry, history: FoldHistory) -> bool:
    later = [first for attempt, first in history.first_epochs.items() if attempt > entry.attempt]
    return any(first <= entry.pushed_epoch for first in later)


def _replaced(store: Store, entry: RunEntry) -> RunEntry:
    if entry.run_id:
        store.delete_run(entry.run_id)
    return RunEntry()


def ensure_runs(
    store: Store, record: MlflowRecord, histories: Histories, description: RunDescription, verify: bool
) -> None:
    """Create the runs that MLflow does not have: the parent, and one per fold.

    Params are logged on the parent alone; a fold's run has the number of its fold, so that a search finds each
    experiment once.

    Args:
        verify: ask MLflow whether runs created earlier still exist. Those that do not are created again, from epoch 0.
    """
    name, tags = description.name, description.tags
    starts = [history.first_ms for history in histories.values() if history.first_ms is not None]
    parent = record.parent = ensure_run(store, record.parent, name, tags, min(starts, default=None), verify)
    if not parent.has_params:
        store.log_params(parent.run_id, description.params)
        if description.dataset is not None and DATASET_TAG in tags:
            cases, folder = description.dataset
            store.log_dataset(parent.run_id, cases, tags[DATASET_TAG][:DIGEST_LENGTH], folder)
        parent.has_params = True
    for fold, history in histories.items():
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

    The entry must have been written to the manifest before: a driver that is killed here finds the run by its key.

    Args:
        name, tags, start_ms: of a new run; ``start_ms`` None: it starts now.
        verify: ask MLflow whether a run created earlier still exists.
    """
    if entry.run_id and (not verify or store.has_run(entry.run_id)):
        return entry
    entry = entry.again(start_ms or now_ms())
    found = store.find_run(KEY_TAG, entry.key)
    entry.run_id = found or store.create_run(name, {**tags, KEY_TAG: entry.key}, entry.start_ms)
    return entry


def push_folds(store: Store, record: MlflowRecord, histories: Histories, closing: bool) -> None:
    """Log every metric of every epoch that may go to MLflow, with its original time, step = epoch."""
    for fold, history in histories.items():
        entry = record.folds[fold]
        last = pushable_epoch(history, closing)
        epochs = [epoch for epoch in sorted(history.epochs) if entry.pushed_epoch < epoch <= last]
        _push_rows(store, entry, ((epoch, epoch_rows(history.epochs[epoch])) for epoch in epochs))
        trained = history.last_epoch + 1
        if entry.epochs_trained != trained:
            store.set_tags(entry.run_id, {TRAINED_TAG: str(trained)})
            entry.epochs_trained = trained


def push_parent(store: Store, record: MlflowRecord, histories: Histories, closing: bool) -> None:
    """Log mean and spread over folds of every epoch that all folds of the run have reached, or finished before."""
    reached = [pushable_epoch(history, closing) for history in histories.values()]
    unfinished = [pushable_epoch(history, closing) for history in histories.values() if history.state != "finished"]
    last = min([max(reached, default=-1), *unfinished])
    rows = ((epoch, mean_rows(histories, epoch)) for epoch in range(record.parent.pushed_epoch + 1, last + 1))
    _push_rows(store, record.parent, rows)


def epoch_rows(record: EpochRecord) -> list[Metric]:
    """An epoch's finite metrics, those that MLflow shows."""
    finite = [name for name, value in record.metrics.items() if math.isfinite(value)]
    return [Metric(name, record.metrics[name], record.time_ms, record.epoch) for name in in_order(finite)]


def mean_rows(histories: Histories, epoch: int) -> list[Metric]:
    """``NAME``: the mean over the folds that have a finite value at this epoch; ``GROUP/std/NAME``: their spread.

    The spread is the population standard deviation (ddof = 0: the folds are all there are, not a sample of folds).
    The time is that of the last fold to reach the epoch, so that pushing again gives the same rows.
    """
    records = [history.epochs[epoch] for history in histories.values() if epoch in history.epochs]
    names = in_order(dict.fromkeys(name for record in records for name in record.metrics))
    rows = []
    for name in names:
        values = [value for record in records if math.isfinite(value := record.metrics.get(name, math.nan))]
        if not values:
            continue
        time_ms = max(record.time_ms for record in records)
        rows.append(Metric(name, float(np.mean(values)), time_ms, epoch))
        if (beside := between_folds_name(name)) is not None:
            rows.append(Metric(beside, float(np.std(values, ddof=0)), time_ms, epoch))
    return rows


def _push_rows(store: Store, entry: RunEntry, epochs: Iterable[tuple[int, list[Metric]]]) -> None:
    """Log whole epochs, as many a call as MLflow allows, and note each call's last epoch."""
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


def push_statuses(store: Store, record: MlflowRecord, histories: Histories, outcome: Outcome | None) -> None:
    """Fold states → run statuses. ``outcome``: what became of the whole run, None while it goes on."""
    for fold, history in histories.items():
        status = FOLD_STATUS[history.state]
        if outcome is not None and status not in TERMINAL:
            status = "KILLED"
        _set_status(store, record.folds[fold], status, history.last_ms)
    ends = [history.last_ms for history in histories.values() if history.last_ms is not None]
    status = "RUNNING" if outcome is None else OUTCOME_STATUS[outcome]
    _set_status(store, record.parent, status, max(ends, default=None))


def _set_status(store: Store, entry: RunEntry, status: str, end_ms: int | None) -> None:
    if entry.status != status:
        store.set_status(entry.run_id, status, end_ms)
        entry.status = status
