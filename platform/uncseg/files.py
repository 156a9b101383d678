"""Files that are complete or absent: written to a temporary name, then renamed. JSON, and records of finished work."""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary name in ``path``'s folder; rename it to ``path`` on success, remove it on failure.

    The temporary name keeps the ending (``.nii.gz``), by which image writers choose the format. ``durable`` waits for
    the disk before the rename, so that even a power cut leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove the partial files and folders that killed processes left."""
    for part in list(folder.rglob(".part-*")):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on ``path``, created if absent, against other threads and processes.

    Raises:
        BlockingIOError: another holds the lock and ``wait`` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        # released when the file is closed, also by a kill
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) so that ``path`` is never partial."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Return ``content`` as JSON that every reader takes; all JSON of this package is made here.

    JSON has no NaN and no infinity: they become null, and a table has NaN there again
    (:func:`~uncseg.table_files.table_of`). NumPy's numbers and arrays are written as numbers and lists.

    Raises:
        TypeError: something in it has no form in JSON.
    """
    return json.dumps(_plain(content), indent=indent, sort_keys=sort_keys, allow_nan=False)


def _plain(content: Any) -> Any:
    """Return JSON-like content in Python's own types, with None in place of numbers that are not finite."""
    if isinstance(content, Mapping):
        return {_plain(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    # NumPy's arrays and numbers; NumPy itself takes a tenth of a second to import
    return _plain(content.tolist()) if hasattr(content, "tolist") else content


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON (:func:`json_text`) so that ``path`` is never partial."""
    write_text(path, json_text(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def kept_record(file: Path, source: str) -> dict[str, Any] | None:
    """Return the record in ``file``, or None unless it was made from ``source`` and its files are still there.

    Args:
        file: JSON that :func:`keep_record` wrote; an entry ``files`` names files beside it.
        source: digest of everything that the record depends on.
    """
    record: dict[str, Any] = read_json(file) if file.is_file() else {}
    complete = all((file.parent / name).is_file() for name in record.get("files", ()))
    return record if record.get("source") == source and complete else None


def keep_record(file: Path, source: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write ``record`` with its source, after all that it describes is written; return it as it is read from now on.

    Its entries keep their order, which is that of the columns of a table made of it.
    """
    write_text(file, json_text(record | {"source": source}, indent=2) + "\n")
    kept: dict[str, Any] = read_json(file)
    return kept


def compute_once(file: Path, source: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record in ``file`` if its source is unchanged (:func:`kept_record`); otherwise compute and keep it."""
    record = kept_record(file, source)
    return keep_record(file, source, compute()) if record is None else record


def file_states(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return (path, bytes, modification time in ns) per file; a changed file has other values, an absent one -1."""
    return [(str(file), *_state(file)) for file in files]


def _state(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # a link to nothing, for example; whoever reads it gives the cause
        return -1, -1
    return status.st_size, status.st_mtime_ns


def short_name(name: str) -> str:
    """Return a name of at most 100 bytes, as a part of a file's name; a longer one is cut and ends in its digest."""
    whole = name.encode()
    return name if len(whole) <= 100 else f"{whole[:87].decode(errors='ignore')}_{digest(name)[:12]}"


def digest(content: Any) -> str:
    """Return the SHA-256 (hex) of JSON-like content, independent of the order of keys; NaN differs from None.

    Raises:
        TypeError: it holds anything but plain values, paths, and NumPy's numbers and arrays: another object's text may
            differ from process to process, as that of a set does.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_digestible).encode()).hexdigest()


def _digestible(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be part of a digest")
