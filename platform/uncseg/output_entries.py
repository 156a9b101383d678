"""What is noted of a file that uncseg wrote, by which it is known again: as it was written, edited or damaged."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TYPES = {"name": str, "owner": str, "bytes": int, "time": int, "sha256": str, "head": str, "lines": list}


def is_entry(entry: Any) -> bool:
    """Return whether a line of a record is one of ours, of a file below the folder."""
    if not isinstance(entry, dict) or any(not isinstance(entry.get(key), kind) for key, kind in _TYPES.items()):
        return False
    path = Path(name := entry["name"])
    return name == path.as_posix() and not path.is_absolute() and ".." not in path.parts and "\0" not in name


_ENDS = {".parquet": b"PAR1", ".png": b"IEND\xaeB`\x82"}
"""How whole files of a kind end."""
_TEXTS = (".csv", ".html", ".yaml")
_HEAD_BYTES = 64


def entry_of(name: str, owner: str, file: Path) -> dict[str, Any]:
    """Return what is noted of a whole file, which is about to get its name relative to a folder of outputs."""
    status, content = file.stat(), file.read_bytes()
    lines = [zlib.crc32(line) for line in content.split(b"\n")] if file.suffix in _TEXTS else []
    known = {"bytes": status.st_size, "time": status.st_mtime_ns, "sha256": hashlib.sha256(content).hexdigest()}
    return {"name": name, "owner": owner} | known | {"head": content[:_HEAD_BYTES].hex(), "lines": lines}


def is_damaged(file: Path, entries: Sequence[dict[str, Any]]) -> bool:
    """Return whether a file is empty, or begins as we wrote it and then breaks off, or has flipped bits.

    Text is damaged where it breaks off within a line: someone may have removed whole ones.
    """
    content = file.read_bytes()
    if not content.strip(b"\0"):
        return True
    begun = content[:_HEAD_BYTES].hex()
    if not any(entry["head"].startswith(begun) for entry in entries):
        return False
    if file.suffix == ".gz":
        try:
            gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return True
    if file.suffix == ".json":
        try:
            json.loads(content)
        except ValueError:
            return True
    if not content.endswith(_ENDS.get(file.suffix, b"")):
        return True
    return any(_breaks_off(content, entry["lines"]) for entry in entries if len(content) < entry["bytes"])


def _breaks_off(content: bytes, lines: Sequence[int]) -> bool:
    *whole, last = map(zlib.crc32, content.split(b"\n"))
    begun = len(whole) < len(lines) and whole == lines[: len(whole)]
    return begun and last not in (zlib.crc32(b""), lines[len(whole)])
