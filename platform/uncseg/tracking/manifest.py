"""The manifest of a run: one JSON file with several writers, each the owner of its own keys."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uncseg.files import read_json, write_json
from uncseg.layout import RunFolder


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if absent), against other threads and other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        yield


def read_manifest(run: RunFolder) -> dict[str, Any]:
    """The manifest's content; empty where there is none yet."""
    return read_json(run.manifest) if run.manifest.exists() else {}


def update_manifest(run: RunFolder, **values: Any) -> None:
    """Set top-level keys of the manifest and leave the others as they are.

    The driver and the syncer's thread write at the same time, so every writer goes through here.
    """
    with file_lock(run.root / ".manifest.lock"):
        write_json(run.manifest, read_manifest(run) | values)
