"""Temporary names of files and folders that are being written, and what killed processes left under such names."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uncseg import stopping

_PARTIAL = re.compile(r"\.part-[0-9a-f]{16}-.+", re.DOTALL)
_HOLD = ".held"
"""In a folder: the file that is locked while it is written."""


def partial_name(name: str) -> str:
    """Return a new temporary name for a file that will be called ``name``; it has the same ending."""
    # the end of a name holds its ending; a whole one might become longer than a file system allows
    return f".part-{secrets.token_hex(8)}-{name[-40:]}"


@contextmanager
def held(file: Path) -> Iterator[Path]:
    """Create an empty file and lock it until the end, also where this process is killed."""
    while True:
        with file.open("xb") as stream:
            with contextlib.suppress(OSError):  # storage without locks: nobody else can lock it either
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not file.exists():  # removed by another process between the two lines
                continue
            with stopping.at_the_end(lambda: file.unlink(missing_ok=True)):
                yield file
            return


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """Yield a new temporary folder in ``parent``, which is removed at the end with what is still in it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / partial_name("folder")
    folder.mkdir()
    try:
        with held(folder / _HOLD), stopping.at_the_end(lambda: shutil.rmtree(folder, ignore_errors=True)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_partial(folder: Path, below: bool = True) -> None:
    """Remove the partial files and folders in ``folder``, and in those below it, that killed processes of ours left.

    Those of a process that still lives, on any node, stay: it holds a lock on them. So does every other file.
    """
    for part in list(folder.rglob(".part-*") if below else folder.glob(".part-*")):
        if _PARTIAL.fullmatch(part.name) and not part.is_symlink():
            with contextlib.suppress(OSError):  # held, gone, or on storage that has no locks
                _remove(part)


def _remove(part: Path) -> None:
    is_folder = part.is_dir()
    with (part / _HOLD if is_folder else part).open("r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_folder:
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring a new name to the disk; some network storage cannot, and needs not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
