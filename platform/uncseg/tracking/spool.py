"""Spool: every metric of every epoch, appended by the workers as JSON lines, one file a fold.

    spool = SpoolWriter(run.spool, fold=2, first_epoch=0)
    spool.epoch(0, {"train/loss": 0.71})
    spool.checkpoint(0)
    spool.state("finished")

The spool is the truth about a run's metrics; MLflow only shows it. A record is one of

    {"kind": "attempt",    "fold": k, "attempt": n, "time_ms": t, "first_epoch": e}
    {"kind": "epoch",      "fold": k, "attempt": n, "time_ms": t, "epoch": e, "metrics": {NAME: number or null}}
    {"kind": "checkpoint", "fold": k, "attempt": n, "time_ms": t, "epoch": e}
    {"kind": "state",      "fold": k, "attempt": n, "time_ms": t, "state": STATE, "message": TEXT}

An attempt begins when a worker starts or restarts: what earlier attempts wrote at epochs ≥ ``first_epoch`` is void.
A checkpoint at epoch e says that no restart trains epoch e or an earlier one again.
"""

import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

FoldState = Literal["waiting", "running", "finished", "failed", "stopped"]
"""stopped: ended for good by somebody who compared it with others, a scheduler."""


def fold_file(folder: Path, fold: int) -> Path:
    """The file of one fold."""
    return Path(folder) / f"fold_{fold}.jsonl"


def spooled_folds(folder: Path) -> list[int]:
    """Numbers of the folds that have a file, ascending; empty where the folder does not exist."""
    names = (re.fullmatch(r"fold_(\d+)\.jsonl", path.name) for path in Path(folder).glob("fold_*.jsonl"))
    return sorted(int(name[1]) for name in names if name)


def _append(path: Path, record: Mapping[str, Any], fsync: bool) -> None:
    # Opened anew for each record: on shared storage, closing is what makes a line visible to the driver's machine.
    line = json.dumps(record, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as stream:
        stream.write(line.encode())
        if fsync:
            os.fsync(stream.fileno())


def _end_torn_line(path: Path) -> None:
    """Add the newline that a writer killed in mid-line left out, so that the next record gets a line of its own."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")


def now_ms() -> int:
    """Unix time in milliseconds, as MLflow has it."""
    return time.time_ns() // 1_000_000


class SpoolWriter:
    """Appends one fold's records; the only writer of that fold's file, one process at a time.

    Args:
        folder: the run's spool folder, made if absent.
        fold: number of the fold.
        first_epoch: the epoch that is trained next: 0 for a fresh start, the restored epoch + 1 after a restart.
        fsync: whether each epoch waits for the disk. A killed process loses nothing without it, a power cut may lose
            epochs since the last checkpoint, which are trained again anyway. Checkpoints and states always wait.
    """

    def __init__(self, folder: Path, fold: int, *, first_epoch: int, fsync: bool = False) -> None:
        self.path = fold_file(folder, fold)
        self.fold = fold
        self.fsync = fsync
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _end_torn_line(self.path)
        self.attempt = read_history(folder, fold).attempt
        self.restart(first_epoch)

    def restart(self, first_epoch: int) -> None:
        """Begin the next attempt; records at epochs ≥ ``first_epoch`` of earlier attempts are void from now on."""
        if first_epoch < 0:
            raise ValueError(f"first_epoch is {first_epoch}; epochs count from 0")
        self.attempt += 1
        self._write("attempt", fsync=True, first_epoch=first_epoch)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch's metrics (unit and range as their names say). NaN and ±inf are written as null."""
        finite = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
        self._write("epoch", self.fsync, epoch=epoch, metrics=finite)

    def checkpoint(self, epoch: int) -> None:
        """Record that a checkpoint taken after ``epoch`` is safely stored. Call it after storing, never before."""
        self._write("checkpoint", fsync=True, epoch=epoch)

    def state(self, state: Literal["running", "finished", "failed"], message: str = "") -> None:
        """Record what became of the fold. "finished" means that none of its epochs is trained again."""
        self._write("state", fsync=True, state=state, message=message)

    def _write(self, kind: str, fsync: bool, **values: Any) -> None:
        record = {"kind": kind, "fold": self.fold, "attempt": self.attempt, "time_ms": now_ms(), **values}
        _append(self.path, record, fsync)


def write_state(folder: Path, fold: int, state: Literal["finished", "failed", "stopped"], message: str = "") -> None:
    """Record a fold's state from the driver, for a worker that died without a word or was ended; begins no attempt."""
    path = fold_file(folder, fold)
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_torn_line(path)
    attempt = read_history(folder, fold).attempt
    record = {"kind": "state", "fold": fold, "attempt": attempt, "time_ms": now_ms(), "state": state}
    _append(path, {**record, "message": message}, fsync=True)


def read_records(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Records from byte ``offset`` on, and the offset to go on from.

    A last line without its newline is still being written: it is left for the next call. A line that is not JSON was
    torn by a kill and then ended by the next writer: it is passed over. An absent file has no records.
    """
    try:
        with Path(path).open("rb") as stream:
            stream.seek(offset)
            content = stream.read()
    except FileNotFoundError:
        return [], offset
    whole = content[: content.rfind(b"\n") + 1]
    records = []
    for line in whole.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record:
            records.append(record)
    return records, offset + len(whole)


_FORMER_NAMES = (
    (r"uncertainty/(\w+)/(reference|union)/(corr_ema|rmsd_ema)", r"uncertainty/\2/\3/\1"),
    (r"(learning_rate|uncertainty_warmup)", r"train/\1"),
    (r"(epoch_seconds|data_wait_seconds)", r"system/\1"),
    (r"memory/(bytes_per_case_\w+)", r"system/memory_\1"),
    (r"memory/(\w+)", r"uncertainty/memory/\1"),
)


@cache
def _current(name: str) -> str:
    """The name of a metric today, of runs that were begun when it had another."""
    for former, now in _FORMER_NAMES:
        if re.fullmatch(former, name):
            return re.sub(former, now, name)
    return name


@dataclass(frozen=True)
class EpochRecord:
    """One epoch that counts. ``metrics`` holds NaN where the worker had no finite value."""

    epoch: int
    attempt: int
    time_ms: int
    metrics: dict[str, float]


@dataclass
class FoldHistory:
    """What a fold's records amount to: the last attempt wins, void epochs are gone.

    ``kept_epoch`` is the last epoch that no restart trains again, -1 where there is none: the end of a finished fold,
    else the last checkpoint. ``first_epochs`` maps each attempt to its first epoch, ``spans`` to the Unix times in
    milliseconds between which it trained.
    """

    fold: int
    state: FoldState = "waiting"
    message: str = ""
    attempt: int = 0
    first_epochs: dict[int, int] = field(default_factory=dict)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    kept_epoch: int = -1
    first_ms: int | None = None
    last_ms: int | None = None
    offset: int = 0

    @property
    def last_epoch(self) -> int:
        """The last epoch that counts, -1 where there is none."""
        return max(self.epochs, default=-1)

    def refresh(self, folder: Path) -> None:
        """Take in what was written since the last call."""
        records, self.offset = read_records(fold_file(folder, self.fold), self.offset)
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in one record. Those of an attempt that has been succeeded are ignored."""
        if record["attempt"] < self.attempt:
            return  # a worker cut off from the cluster may write on while its successor already trains
        if record["attempt"] == self.attempt and self.state == "stopped":
            return  # a worker writes on until the kill reaches it
        self.first_ms = record["time_ms"] if self.first_ms is None else self.first_ms
        self.last_ms = record["time_ms"]
        if record["kind"] == "attempt":
            self._begin(record["attempt"], record["first_epoch"])
            self.spans[self.attempt] = (record["time_ms"], record["time_ms"])
        elif record["kind"] == "epoch":
            values = {_current(name): value for name, value in record["metrics"].items()}
            metrics = {name: math.nan if value is None else value for name, value in values.items()}
            epoch = record["epoch"]
            self.epochs[epoch] = EpochRecord(epoch, record["attempt"], record["time_ms"], metrics)
        elif record["kind"] == "checkpoint":
            self.kept_epoch = max(self.kept_epoch, record["epoch"])
        elif record["kind"] == "state":
            self.state, self.message = record["state"], record["message"]
            if self.state == "finished":
                self.kept_epoch = self.last_epoch
        if record["kind"] in ("epoch", "checkpoint") and self.attempt in self.spans:
            self.spans[self.attempt] = (self.spans[self.attempt][0], record["time_ms"])

    def _begin(self, attempt: int, first_epoch: int) -> None:
        self.attempt, self.first_epochs[attempt] = attempt, first_epoch
        self.state, self.message = "running", ""
        self.epochs = {epoch: record for epoch, record in self.epochs.items() if epoch < first_epoch}
        self.kept_epoch = first_epoch - 1  # it was restored from a checkpoint there


def read_history(folder: Path, fold: int) -> FoldHistory:
    """The history of one fold, from its whole file; empty ("waiting") where there is none."""
    history = FoldHistory(fold)
    history.refresh(folder)
    return history


def epoch_table(spool_folder: Path) -> pd.DataFrame:
    """Every epoch that counts, one row per fold and epoch, sorted by both.

    Columns: ``fold``, ``epoch``, ``attempt``, ``time_ms`` (Unix time at the epoch's end, milliseconds), then every
    metric in the order of its first appearance (NaN where a fold or epoch lacks it). Without records: no rows.
    """
    rows = []
    for fold in spooled_folds(spool_folder):
        for _, record in sorted(read_history(spool_folder, fold).epochs.items()):
            known = {"fold": fold, "epoch": record.epoch, "attempt": record.attempt, "time_ms": record.time_ms}
            rows.append(known | record.metrics)
    table = pd.DataFrame(rows, columns=None if rows else ["fold", "epoch", "attempt", "time_ms"])
    return table.astype({"fold": "int64", "epoch": "int64", "attempt": "int64", "time_ms": "int64"})
