"""The manifest of a run: one JSON file with several writers, each the owner of its own keys."""

from typing import Any

from uncseg.files import file_lock, read_json, write_json
from uncseg.layout import RunFolder


def read_manifest(run: RunFolder) -> dict[str, Any]:
    """The manifest's content; empty where there is none yet."""
    return read_json(run.manifest) if run.manifest.exists() else {}


def update_manifest(run: RunFolder, **values: Any) -> None:
    """Set top-level keys of the manifest and leave the others as they are.

    The driver and the syncer's thread write at the same time, so every writer goes through here.
    """
    with file_lock(run.root / ".manifest.lock"):
        write_json(run.manifest, read_manifest(run) | values)
