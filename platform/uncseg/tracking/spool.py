"""The spool: every metric of every epoch, appended by the fold workers as JSON lines, one file per fold.

    spool = SpoolWriter(run.spool, fold=2, first_epoch=0)
    spool.epoch(0, {"train/loss": 0.71})
    spool.checkpoint(0)
    spool.state("finished")

The spool is the source of truth for a run's metrics; MLflow only shows them. A record is one of

    {"kind": "attempt",    "fold": k, "attempt": n, "time_ms": t, "first_epoch": e}
    {"kind": "epoch",      "fold": k, "attempt": n, "time_ms": t, "epoch": e, "metrics": {NAME: number or null}}
    {"kind": "checkpoint", "fold": k, "attempt": n, "time_ms": t, "epoch": e}
    {"kind": "state",      "fold": k, "attempt": n, "time_ms": t, "state": STATE, "message": TEXT}

An attempt begins when a worker starts or restarts; it makes records of earlier attempts at epochs ≥ ``first_epoch``
void. A checkpoint at epoch e says that no restart trains epoch e or an earlier one again.
"""

import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from uncseg.files import json_text

if TYPE_CHECKING:  # takes half a second
    import pandas as pd

FoldState = Literal["waiting", "running", "finished", "failed", "stopped"]
"""stopped: ended for good from outside, for example by a sweep's scheduler."""


def fold_file(folder: Path, fold: int) -> Path:
    """Return the spool file of one fold."""
    return Path(folder) / f"fold_{fold}.jsonl"


def spooled_folds(folder: Path) -> list[int]:
    """Return the numbers of the folds that have a file, ascending; empty if the folder does not exist."""
    names = (re.fullmatch(r"fold_(\d+)\.jsonl", path.name) for path in Path(folder).glob("fold_*.jsonl"))
    return sorted(int(name[1]) for name in names if name)


def now_ms() -> int:
    """Return the Unix time in milliseconds, as MLflow uses it."""
    return time.time_ns() // 1_000_000


def _end_torn_line(path: Path) -> None:
    """Add the newline that a writer killed in mid-line left out, so that the next record gets a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        if stream.tell() > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def _append(path: Path, kind: str, fold: int, attempt: int, **values: Any) -> None:
    """Append a record; all but an epoch wait for the disk.

    A killed process loses nothing. A power cut may lose epochs since the last checkpoint, which are trained again.
    """
    record = {"kind": kind, "fold": fold, "attempt": attempt, "time_ms": now_ms(), **values}
    # The file is opened for each record: on shared storage, closing it makes the line visible to the driver's machine.
    with path.open("ab", buffering=0) as stream:
        stream.write(json_text(record).encode() + b"\n")
        if kind != "epoch":
            os.fsync(stream.fileno())


class SpoolWriter:
    """Appends one fold's records; the only writer of that fold's file, in one process at a time.

    ``first_epoch`` is trained next: 0 for a fresh start, the restored epoch + 1 after a restart.
    """

    def __init__(self, folder: Path, fold: int, *, first_epoch: int) -> None:
        self.path, self.fold = fold_file(folder, fold), fold
        _end_torn_line(self.path)
        self.attempt = read_history(folder, fold).attempt
        self.restart(first_epoch)

    def restart(self, first_epoch: int) -> None:
        """Begin the next attempt; records of earlier attempts at epochs ≥ ``first_epoch`` are void from now on."""
        if first_epoch < 0:
            raise ValueError(f"first_epoch is {first_epoch}; epochs count from 0")
        self.attempt += 1
        self._write("attempt", first_epoch=first_epoch)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch's metrics (unit and range as their names say). NaN and ±inf are written as null."""
        self._write("epoch", epoch=epoch, metrics={name: float(value) for name, value in metrics.items()})

    def checkpoint(self, epoch: int) -> None:
        """Record that a checkpoint taken after ``epoch`` is safely stored; call it after storing, never before."""
        self._write("checkpoint", epoch=epoch)

    def state(self, state: Literal["running", "finished", "failed"], message: str = "") -> None:
        """Record the fold's state. "finished" means that none of its epochs is trained again."""
        self._write("state", state=state, message=message)

    def _write(self, kind: str, **values: Any) -> None:
        _append(self.path, kind, self.fold, self.attempt, **values)


def write_state(folder: Path, fold: int, state: Literal["finished", "failed", "stopped"], message: str = "") -> None:
    """Record a fold's state from the driver, for a worker that was killed or stopped; this begins no attempt."""
    path = fold_file(folder, fold)
    _end_torn_line(path)
    _append(path, "state", fold, read_history(folder, fold).attempt, state=state, message=message)


def read_records(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the records from byte ``offset`` on, and the offset of the next call.

    A last line without a newline is still being written and is left for the next call. A line that is no record was
    torn by a kill, ended by the next writer, or damaged later, and is skipped. An absent file has no records.
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
        except (ValueError, RecursionError):
            continue
        if _is_record(record):
            records.append(record)
    return records, offset + len(whole)


_NUMBER = int | float | None
_FIELDS: dict[str, dict[str, Any]] = {
    "attempt": {"first_epoch": int},
    "epoch": {"epoch": int, "metrics": dict},
    "checkpoint": {"epoch": int},
    "state": {"state": str, "message": str},
}
"""Fields of each kind of record, beside those of all: fold, attempt and time_ms."""


def _is_record(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        return False
    kinds = {"fold": int, "attempt": int, "time_ms": int} | _FIELDS.get(content["kind"], {})
    if not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        return False
    return all(isinstance(value, _NUMBER) for value in content.get("metrics", {}).values())


@dataclass(frozen=True)
class EpochRecord:
    """One epoch that counts."""

    epoch: int
    attempt: int
    time_ms: int
    """Unix time at the end of the epoch, milliseconds."""
    metrics: dict[str, float]
    """NaN where the worker had no finite value."""


@dataclass
class FoldHistory:
    """The outcome of a fold's records: the last attempt counts, void epochs are removed."""

    fold: int
    state: FoldState = "waiting"
    message: str = ""
    attempt: int = 0
    first_epochs: dict[int, int] = field(default_factory=dict)
    """The first epoch of each attempt."""
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    """When each attempt began and last trained, Unix times in milliseconds."""
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    kept_epoch: int = -1
    """The last epoch that no restart trains again: of a finished fold the last, else the last checkpoint; -1: none."""
    first_ms: int | None = None
    last_ms: int | None = None
    foreign: set[int] = field(default_factory=set)
    """Other folds whose records the file holds: files were exchanged."""
    offset: int = 0
    """Bytes of the file that have been read."""

    @property
    def last_epoch(self) -> int:
        """The last epoch that counts; -1 if there is none."""
        return max(self.epochs, default=-1)

    def refresh(self, folder: Path) -> None:
        """Add the records that were written since the last call."""
        records, self.offset = read_records(fold_file(folder, self.fold), self.offset)
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add one record; those of another fold, or of an attempt that has been succeeded, do not count."""
        if record["fold"] != self.fold:
            self.foreign.add(record["fold"])
            return
        attempt, kind, time_ms = record["attempt"], record["kind"], record["time_ms"]
        # A worker cut off from the cluster may write on while its successor trains, a stopped one until it is killed.
        if attempt < self.attempt or (attempt == self.attempt and self.state == "stopped"):
            return
        self.first_ms = time_ms if self.first_ms is None else self.first_ms
        self.last_ms = time_ms
        if kind == "attempt":
            first = self.first_epochs[attempt] = record["first_epoch"]
            self.spans[attempt] = (time_ms, time_ms)
            self.attempt, self.state, self.message = attempt, "running", ""
            self.epochs = {epoch: known for epoch, known in self.epochs.items() if epoch < first}
            self.kept_epoch = first - 1  # the attempt was restored from a checkpoint there
        elif kind == "epoch":
            metrics = {name: math.nan if value is None else value for name, value in record["metrics"].items()}
            self.epochs[record["epoch"]] = EpochRecord(record["epoch"], attempt, time_ms, metrics)
        elif kind == "checkpoint":
            self.kept_epoch = max(self.kept_epoch, record["epoch"])
        elif kind == "state":
            self.state, self.message = record["state"], record["message"]
            self.kept_epoch = self.last_epoch if self.state == "finished" else self.kept_epoch
        if kind in ("epoch", "checkpoint") and self.attempt in self.spans:
            self.spans[self.attempt] = (self.spans[self.attempt][0], time_ms)


def read_history(folder: Path, fold: int) -> FoldHistory:
    """Return the history of one fold, from its whole file; empty ("waiting") if there is none."""
    history = FoldHistory(fold)
    history.refresh(folder)
    return history


def epoch_table(spool_folder: Path) -> "pd.DataFrame":
    """Return every epoch that counts, one row per fold and epoch, sorted by both.

    Columns: ``fold``, ``epoch``, ``attempt``, ``time_ms`` (Unix time at the epoch's end, milliseconds), then every
    metric in the order of its first appearance (NaN where a fold or epoch lacks it). Without records: no rows.
    """
    import pandas as pd

    columns = ["fold", "epoch", "attempt", "time_ms"]
    rows = [
        {"fold": fold, "epoch": record.epoch, "attempt": record.attempt, "time_ms": record.time_ms} | record.metrics
        for fold in spooled_folds(spool_folder)
        for _, record in sorted(read_history(spool_folder, fold).epochs.items())
    ]
    return pd.DataFrame(rows, columns=None if rows else columns).astype(dict.fromkeys(columns, "int64"))
