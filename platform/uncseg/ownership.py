"""What is one's own: folders that this user's uncseg made at the place where they lie now, and texts that it wrote.

    make_own(folder)      # creates it; marks it unless something was in it already
    is_own(folder)        # False for a folder from someone else, and for one that was moved or copied
    code = sign(address)  # kept beside the address
    is_signed(address, code)

A folder from someone else may name addresses, and hold files that run code when they are read; both are used without a
question only where the folder is one's own. The mark is a code over the folder's place that only a key in the user's
home can make. It tells nothing about the content: whoever may write into a folder of mine can change what is in it.
"""

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from uncseg.files import json_text, read_json, write_text

MARK = ".uncseg-own.json"
"""The file in a folder that holds its mark."""
KEY_BYTES = 32
LEVELS = 3
"""Folders above a run's own, up to that of the study whose run it is."""
_MOST_BYTES = 1000


def make_own(folder: Path) -> None:
    """Create a folder if it is absent, and mark it as one's own unless it holds anything already.

    Hidden files and empty folders count as nothing: they are all that a command killed at its beginning leaves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if all(map(_is_nothing, folder.iterdir())):
        mark_as_own(folder)


def mark_as_own(folder: Path) -> None:
    """Mark an existing folder as made by this user at this place; without a place for a key it stays unmarked."""
    if is_own(folder):
        return
    with suppress(OSError, RuntimeError):  # a home that is absent or read-only: whatever depends on the mark is asked
        nonce = secrets.token_hex(KEY_BYTES)
        code = _code(_made_key(), nonce, str(folder.resolve()))
        write_text(folder / MARK, json_text({"nonce": nonce, "code": code}) + "\n")


def is_own(folder: Path) -> bool:
    """Return whether :func:`mark_as_own` was called for this folder, at this place, by this user."""
    key, mark = _key(), folder / MARK
    try:
        if key is None or not _is_small_file(mark):
            return False
        content = read_json(mark)
        nonce, code = content["nonce"], content["code"]
    except Exception:  # whatever a stranger wrote there
        return False
    return isinstance(nonce, str) and _same(code, _code(key, nonce, str(folder.resolve())))


def is_own_run(root: Path) -> bool:
    """Return whether a run's folder, or the study above it, is one's own."""
    return any(map(is_own, (root, *root.parents[:LEVELS])))


def holds(root: Path, file: Path) -> bool:
    """Return whether a path is a regular file below a folder, also where links on the way to it are followed.

    In a run of others, a hard link to a file that is elsewhere, too, does not count.
    """
    try:
        found = file.resolve(strict=True)
        status = found.stat()
        if not found.is_relative_to(root.resolve()) or not stat.S_ISREG(status.st_mode):
            return False
    except (OSError, RuntimeError):  # absent, or a circle of links
        return False
    return status.st_nlink == 1 or is_own_run(root) or found not in _hard_links_out(root.resolve())


def links_out(root: Path) -> dict[Path, str]:
    """Return all that leads out of a folder, or nowhere: links, each with where it leads, pipes and devices.

    A hard link leads out where its file has more names than are in the folder.
    """
    whole = root.resolve()
    out = {
        path: f"a link to {path.readlink()}"
        for path in _below(root)
        if path.is_symlink() and not _leads_into(path, whole)
    }
    out |= {
        path: "a pipe or device" for path in _below(root) if path.exists() and not (path.is_file() or path.is_dir())
    }
    return out | dict.fromkeys(_hard_links_out(root), "a link to a file that has another name elsewhere")


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in sorted((*folders, *files)))


def _hard_links_out(root: Path) -> list[Path]:
    names: dict[tuple[int, int, int], list[Path]] = {}
    for path in _below(root):
        with suppress(FileNotFoundError):  # a temporary one, gone meanwhile
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                names.setdefault((status.st_nlink, status.st_dev, status.st_ino), []).append(path)
    return [path for (count, *_), paths in names.items() if len(paths) < count for path in paths]


def _leads_into(link: Path, folder: Path) -> bool:
    try:
        return link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a circle of links
        return False


def sign(text: str) -> str:
    """Return a code by which :func:`is_signed` knows a text that this user wrote; empty without a place for a key."""
    try:
        return _code(_made_key(), "text", text)
    except (OSError, RuntimeError):
        return ""


def is_signed(text: str, code: str) -> bool:
    """Return whether :func:`sign` gave this user this code for the text, wherever the code was kept meanwhile."""
    key = _key()
    return key is not None and _same(code, _code(key, "text", text))


def _is_nothing(path: Path) -> bool:
    return path.name.startswith(".") or (path.is_dir() and not path.is_symlink() and not any(path.iterdir()))


def _code(key: bytes, kind: str, text: str) -> str:
    return hmac.new(key, json_text([kind, text]).encode(), hashlib.sha256).hexdigest()


def _same(code: Any, expected: str) -> bool:
    return isinstance(code, str) and code.isascii() and hmac.compare_digest(code, expected)


def _key_file() -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    # a relative path is to be ignored, says the standard that names the variable
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "uncseg" / "key"


def _key() -> bytes | None:
    """Return this user's key; None if there is none, or others may have read or written it."""
    try:
        file = _key_file()
        status = file.lstat()
        safe = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
        key = file.read_bytes() if safe and status.st_size == KEY_BYTES else b""
    except (OSError, RuntimeError):  # absent, or there is no home
        return None
    return key if len(key) == KEY_BYTES else None


def _made_key() -> bytes:
    """Return this user's key, which is made if there is none that can be used.

    Raises:
        OSError: there is no place for it.
        RuntimeError: there is no home.
    """
    if (key := _key()) is not None:
        return key
    file = _key_file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if file.is_symlink() or file.exists():  # one that others know, or that is not whole
        file.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".part-") as stream:  # mode 0600
        stream.write(secrets.token_bytes(KEY_BYTES))
        stream.flush()
        with suppress(FileExistsError):  # another command was faster: its key is the one
            os.link(stream.name, file)
    key = _key()
    if key is None:
        raise OSError(f"{file} cannot hold a key")
    return key


def _is_small_file(file: Path) -> bool:
    """Return whether a path is a regular file of a few bytes: reading a pipe could wait for ever."""
    status = file.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES
