"""The manifest of a run or a study: one JSON file with several writers, each of which owns its own keys."""

from pathlib import Path
from typing import Any

from uncseg.files import file_lock, read_json, write_json


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Return the manifest's content; empty if there is none yet.

    Raises:
        DamagedFile: the file is not a JSON object.
    """
    advice = "restore it, or delete it: uncseg sync then creates the MLflow runs again"
    return dict(read_json(manifest, advice)) if manifest.exists() else {}


def update_manifest(manifest: Path, **values: Any) -> None:
    """Set top-level keys of the manifest and leave the others as they are.

    The driver and the syncer's thread write at the same time, so every writer uses this function.
    """
    with file_lock(manifest.with_name(".manifest.lock")):
        write_json(manifest, read_manifest(manifest) | values)
