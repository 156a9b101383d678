"""The one way to write a file, whole or not at all, and to read ours back. JSON, and what a file is known by."""

import errno
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

from uncseg.errors import DamagedFile, first_line, listed
from uncseg.partial_files import held, partial_name, sync_folder

RESTORE = "restore it from a copy; where there is none, move it away and give the command that made it again"
"""What to do about a damaged file, where nothing better is known."""


@contextmanager
def whole_file(path: Path, *, verify: Callable[[Path], Any] | None = None) -> Iterator[Path]:
    """Yield a temporary name in ``path``'s folder; rename it to ``path`` on success, remove it on failure.

    The temporary name keeps the ending (``.nii.gz``), by which image writers choose the format. File and folder are
    synced, so that a full disk is noticed before the rename, and even a power cut leaves the old file or the new one.

    Args:
        path: the final name; the folder is made.
        verify: called with the temporary file before the rename; it raises where the content is not what was to be
            written, for writers that do not tell when a disk is full (:func:`not_whole`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(partial_name(path.name))) as temporary:
        try:
            yield temporary
            if verify is not None:
                verify(temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            _rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def move_whole(file: Path, target: Path) -> None:
    """Sync a finished file of a :func:`partial_folder`, and give it its final name on the same disk."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    _rename(file, target)


before_a_rename: list[Callable[[Path, Path], None]] = []
"""Each is called with a whole file and the final name that it is about to get; one that raises prevents that."""


def _rename(file: Path, target: Path) -> None:
    for called in list(before_a_rename):
        called(file, target)
    file.replace(target)
    sync_folder(target.parent)


_ROOM_BYTES = 2**22


def not_whole(path: Path, found: str) -> OSError:
    """Return the error of a file whose content is not what was written; the usual cause is a full disk."""
    full = shutil.disk_usage(Path(path).parent).free < _ROOM_BYTES
    code = errno.ENOSPC if full else errno.EIO
    return OSError(code, f"{os.strerror(code)}: the file was not written as a whole ({found})", str(path))


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


def read_text(path: Path, advice: str = RESTORE) -> str:
    """Return the text (UTF-8) of a file that uncseg wrote.

    Raises:
        DamagedFile: there is no such file, it is empty, or it is not UTF-8; ``advice`` says what makes it again.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedFile.of(path, f"bytes that are not UTF-8, from byte {error.start}", "text", advice) from error
    except OSError as error:
        found = "nothing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise DamagedFile.of(path, found, "a file that can be read", advice) from error
    if not text.strip("\0 \t\r\n"):
        found = f"{len(text)} bytes of nothing" if text else "an empty file"
        raise DamagedFile.of(path, found, "the text that was written", advice)
    return text


def read_json(path: Path, advice: str = RESTORE, shape: Any = dict[str, Any], keys: Iterable[str] = ()) -> Any:
    """Return the parsed content of a JSON file that uncseg wrote.

    Args:
        path: the file.
        advice: what makes the file again, in the imperative mood.
        shape: the type of the content, as pydantic checks it (``list[dict[str, int]]``).
        keys: entries that an object must have.

    Raises:
        DamagedFile: there is no such file, or it is empty, truncated, not UTF-8, or of another shape.
    """
    text = read_text(path, advice)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        cause = "brackets nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise DamagedFile.of(path, f"text that is not whole JSON: {cause}", "JSON", advice) from error
    if missing := [key for key in keys if not isinstance(content, dict) or key not in content]:
        raise DamagedFile.of(path, f"no {listed(missing)}", "a JSON object with these entries", advice)
    if shape == dict[str, Any]:
        if not isinstance(content, dict):
            raise DamagedFile.of(path, " ".join(text.split())[:60], "a JSON object", advice)
        return content
    return _as_shape(path, content, shape, advice)


def _as_shape(path: Path, content: Any, shape: Any, advice: str) -> Any:
    from pydantic import TypeAdapter, ValidationError  # takes a moment to import

    try:
        return TypeAdapter(shape).validate_python(content)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"])) or "the content"
        raise DamagedFile.of(path, f"{place}: {wrong['msg']}", "the content that was written", advice) from error


def described(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return ``bytes`` and ``sha256`` of files in a folder by name, from which :func:`is_as_described` knows them."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)} for name in names}


def is_as_described(file: Path, description: Any, since_ns: int = 0) -> bool:
    """Return whether a file has the size and the content of an entry of :func:`described`.

    The content of a large file that is older than ``since_ns`` (a modification time) is not read.
    """
    try:
        status = file.stat()
        if not file.is_file() or status.st_size != description["bytes"]:
            return False
        trusted = status.st_mtime_ns < since_ns and status.st_size > _SMALL_BYTES
        return trusted or file_digest(file) == description["sha256"]
    except (OSError, TypeError, KeyError):
        return False


_SMALL_BYTES = 2**20
"""Files up to this size are always read when work is resumed: segmentations and pictures are among them."""


def file_digest(file: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which may have no end.
    """
    if not file.is_file() and not file.is_dir() and file.exists():
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_contents(files: Iterable[Path]) -> list[str]:
    """Return the SHA-256 (hex) per file, which is the same wherever the file lies; "" for one that cannot be read."""
    return [_content(file) for file in files]


def _content(file: Path) -> str:
    try:
        return file_digest(file)
    except OSError:  # a link to nothing, for example; whoever reads it gives the cause
        return ""


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
