"""Folds trained side by side, each failing and resuming on its own."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence

from uncseg.cluster.resources import Slots
from uncseg.runs.fold_group import run_fold_group
from uncseg.runs.fold_request import FoldRequest, is_done
from uncseg.tracking.spool import read_history, write_state

POLL_S = 0.5
PLACEMENT_TIMEOUT_S = str(7 * 24 * 3600)  # folds wait for others to finish, which may train for days
FULL_BYTES = 2**20


def train_folds(
    requests: Sequence[FoldRequest], slots: Slots, show: Callable[[], None] = lambda: None, own_ray: bool = True
) -> list[tuple[FoldRequest, str]]:
    """Train folds side by side, as many as there are slots; the others wait. A failed fold does not stop the others.

    With a Ray of the command's own, folds wait in this process, where waiting costs nothing. On a cluster they wait in
    Ray's queue: its autoscaler sees what they need, and nodes that join meanwhile are used at once.

    Args:
        requests: folds of one run or of several, each taking a slot.
        show: called a few times per second, in the calling thread.
        own_ray: the connected Ray was started by this command.

    Returns:
        Each fold that failed, and what happened. Finished folds are not trained again.
    """
    set_ray_train_defaults()
    failed: dict[int, str] = {}
    free = threading.Semaphore(slots.count if own_ray else slots.requested)

    def train(number: int) -> None:
        with free:
            try:
                message = _train_fold(requests[number], slots)
            except Exception as error:  # for example, the storage did not answer
                message = short_message(error)
        if message is not None:
            failed[number] = message

    # daemons and not a pool, whose threads are joined at exit: after Ctrl-C nothing may wait for a fold
    threads = [
        threading.Thread(target=train, args=(number,), name=f"fold-{request.fold}", daemon=True)
        for number, request in enumerate(requests)
        if not is_done(request.run, request.fold)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        show()
        time.sleep(POLL_S)
    show()
    for number, request in enumerate(requests):
        if number not in failed and not is_done(request.run, request.fold):
            failed[number] = "its training did not end"
    return [(requests[number], message) for number, message in sorted(failed.items())]


def set_ray_train_defaults() -> None:
    """Set how Ray Train watches its workers, unless the user has set it."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # otherwise a waiting fold would lose its place in Ray's queue every minute
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", PLACEMENT_TIMEOUT_S)


def _train_fold(request: FoldRequest, slots: Slots) -> str | None:
    """Train one fold with Ray Train; return None, or what went wrong."""
    # checkpoints lie in the run's folder; a snapshot of a killed command is truncated or says that Ray gave up
    shutil.rmtree(request.run.root / "ray" / f"folds_{request.fold}", ignore_errors=True)
    message, before = None, read_history(request.run.spool, request.fold).offset
    try:
        run_fold_group([request], slots.fold)
    except Exception as error:
        # Ray reports dead workers, lost nodes and broken snapshots with many types
        message = short_message(error)
    if is_done(request.run, request.fold):
        return None
    history = read_history(request.run.spool, request.fold)
    if history.state == "failed" and history.offset > before:  # as the worker itself reported it
        return history.message
    message = message or "the worker ended before its last epoch"
    if (free := shutil.disk_usage(request.run.root).free) <= FULL_BYTES:
        message = f"the disk of {request.run.root} is full ({free / 1e6:.1f} MB free)"
        message += "; free some space and run the same command again"
    with contextlib.suppress(OSError):
        write_state(request.run.spool, request.fold, "failed", message)
    return message


def short_message(error: Exception) -> str:
    """Return in one line what Ray raised when it gave up a fold."""
    text = str(error).strip()
    if "running low on memory" in text:  # said of a worker that Ray's memory monitor killed repeatedly
        advice = "lower resources.folds_at_once or training.loader_processes, or use a node with more memory"
        return f"its workers were killed because their node ran out of memory; {advice}"
    return f"{type(error).__name__}: {text.splitlines()[-1] if text else ''}"
