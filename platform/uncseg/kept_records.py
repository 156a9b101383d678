"""Records of finished work, from which a command goes on: each says what it was made from, and what its files hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uncseg.errors import DamagedFile
from uncseg.files import described, digest, is_as_described, json_text, read_json, write_text


def kept_record(file: Path, source: str) -> dict[str, Any] | None:
    """Return the record in ``file``, or None unless it is whole, was made from ``source``, and so are its files.

    A record or a file that is damaged, truncated or changed since counts as absent, so that it is made again.

    Args:
        file: JSON that :func:`keep_record` wrote.
        source: digest of everything that the record depends on.
    """
    record = _whole_record(file)
    return None if record is None or record.get("source") != source else record


_DIGEST = "sha256_of_record"


def is_whole(file: Path) -> bool:
    """Return whether the record in ``file`` and its files are as they were written, from whatever source."""
    return _whole_record(file) is not None


def _whole_record(file: Path) -> dict[str, Any] | None:
    try:
        written = file.stat().st_mtime_ns
        record: dict[str, Any] = read_json(file)
    except (OSError, DamagedFile):
        return None
    if record.pop(_DIGEST, None) != digest(record):
        return None
    files = record.get("files", {})
    whole = isinstance(files, dict) and all(is_as_described(file.parent / n, files[n], written) for n in files)
    return record if whole else None


def keep_record(file: Path, source: str, record: dict[str, Any]) -> dict[str, Any]:
    """Write ``record`` with its source, after all that it describes is written; return it as it is read from now on.

    Its entries keep their order, which is that of the columns of a table made of it. An entry ``files`` that lists
    names of files beside it is kept as {name: {bytes, sha256}}, by which :func:`kept_record` knows them again.
    """
    file.parent.mkdir(parents=True, exist_ok=True)  # names like ../a need it
    files = {"files": described(file.parent, record["files"])} if "files" in record else {}
    content: dict[str, Any] = json.loads(json_text(record | files | {"source": source}))
    content.pop(_DIGEST, None)  # of a record that was read
    write_text(file, json_text(content | {_DIGEST: digest(content)}, indent=2) + "\n")
    return content


def compute_once(file: Path, source: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the record in ``file`` if it can be used (:func:`kept_record`); otherwise compute and keep it."""
    record = kept_record(file, source)
    return keep_record(file, source, compute()) if record is None else record
