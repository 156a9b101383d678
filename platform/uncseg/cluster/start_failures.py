"""Why a local Ray did not come up, as one problem: its own messages name consequences, and its logs the cause."""

import errno
import os
import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from uncseg.cluster.environment import TEMP, temp_folder
from uncseg.errors import Problem

ROOM_BYTES = 64 * 2**20
"""Free space without which a local Ray does not come up: its logs, and shared memory where /dev/shm is too small."""
CONNECT_S = 5.0
_LOG_LINES = 200  # of the end of each log
_TEXT = 300  # characters of Ray's own words
_BIND = "Address already in use|Cannot assign requested address|Failed to (bind|find a port)|Network is unreachable"
_FATAL_BIND = rf"(Check failed|Failed to find a valid port)[^\n]*({_BIND})|^\w*Error: [^\n]*({_BIND})[^\n]*\s*\Z"
"""In a log: the check that ends a process of Ray's, or the exception that is its last line."""
_GOES_ON = "Retrying|Try to use port|attempt \\d+/"
"""In lines on a port that was taken, after which a part of Ray tries again or takes another."""
_STAYS = "will stay alive|Agent port #"
"""In the log of an agent that goes on without its port."""
_PLACE, _MACHINE = "the folder of the local Ray", "this machine"
_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        "No space left on device|ENOSPC|Disk quota exceeded",
        "no space left on its disk",
        "room for its files",
        f"free some space, or let {TEMP} name a folder on another disk",
    ),
    (
        "Too many open files",
        "too many open files",
        "room for about 1000 open files",
        "raise the limit: ulimit -n 65536",
    ),
    (
        "Resource temporarily unavailable|can't start new thread|pthread_create|Cannot allocate memory|bad_alloc",
        "no room for more processes or memory",
        "about 1 GB of memory and 500 threads",
        "end other work, or raise the limits (ulimit -u, ulimit -v)",
    ),
    (
        _BIND,
        "no free port on 127.0.0.1",
        "free ports on the loopback address",
        "end what holds them, or switch the loopback interface on (ip link set lo up)",
    ),
    (
        "Read-only file system|Permission denied",
        "no permission to write in its folder",
        "a folder that you may write to",
        f"let {TEMP} name such a folder",
    ),
)
"""Pattern in an error or a log of Ray's (the last: in errors alone), and what is found, expected and advised."""
_LATE = (
    ("dashboard", "its dashboard did not come up", "RAY_DASHBOARD_STARTUP_TIMEOUT_S"),
    ("gcs|GCS", "its server (GCS) did not come up", "RAY_gcs_server_port_wait_time_s"),
    ("timed out|TimeoutError", "its node did not come up", ""),
)
"""Pattern in an error, the part that was late, and the variable with its limit in seconds."""


def folder_problem(error: OSError) -> Problem:
    """Return what keeps a local Ray from having a folder of its own."""
    folder = temp_folder()
    found = f"{folder}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(TEMP, found, "room for its files", _CAUSES[0][3])
    return Problem(TEMP, found, "a folder that you may write to", f"let {TEMP} name such a folder")


def machine_problem() -> Problem | None:
    """Return what is known to keep a local Ray from coming up before it is started; it would take Ray half a minute."""
    folder = temp_folder()
    with suppress(OSError):
        if shutil.disk_usage(folder).free < ROOM_BYTES:
            found = f"{folder}: {os.strerror(errno.ENOSPC)}"
            return Problem(TEMP, found, f"{ROOM_BYTES // 2**20} MB for its files", _CAUSES[0][3])
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), CONNECT_S),
        ):
            return None
    except OSError as error:
        _, found, expected, advice = _CAUSES[-2]
        return Problem(_MACHINE, f"{found}: {error.strerror or error}", expected, advice)


def start_problem(error: Exception, folder: Path) -> Problem:
    """Return why a local Ray in ``folder`` did not come up, from what it raised and from its logs."""
    if isinstance(error, PermissionError) and (file := _program(error, folder)):
        advice = "let its owner make it executable, or install Ray again in this environment"
        return Problem(file, "may not be run", "a program of Ray's that you may run", advice)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return folder_problem(error)
    logs = _logs(folder)
    try:
        full = shutil.disk_usage(folder.parent).free < 2**20
    except OSError:
        full = True
    if full:
        logs = (os.strerror(errno.ENOSPC),)
    # what Ray raises names the cause more exactly than its logs, which complain of much
    own = "\n".join(line for line in str(error).splitlines() if not re.search(_GOES_ON, line))
    for causes, texts, of_logs in ((_CAUSES, (own,), False), (_CAUSES[:-1], logs, True)):
        for pattern, found, expected, advice in causes:
            if any(_tells(pattern, text, of_logs) for text in texts):
                if found.endswith(("disk", "folder")):
                    return Problem(_PLACE, f"{found} ({folder.parent.parent})", expected, advice)
                return Problem(_MACHINE, found, expected, advice)
    return _late_problem(error, logs)


def _program(error: PermissionError, folder: Path) -> str:
    """Return the program that may not be run, if an error is about one; empty where it is about a place to write."""
    file = Path(str(error.filename or folder))
    is_data = file.is_relative_to(folder) or not file.is_file()
    return "" if is_data or not os.access(file, os.R_OK) or os.access(file, os.X_OK) else str(file)


def _tells(pattern: str, text: str, of_a_log: bool) -> bool:
    """Return whether a text names a cause; a port that is taken, of which many a log speaks, only if it ended all."""
    if of_a_log and pattern == _BIND:
        return not re.search(_STAYS, text) and bool(re.search(_FATAL_BIND, text, re.IGNORECASE | re.MULTILINE))
    return bool(re.search(pattern, text, re.IGNORECASE))


def _late_problem(error: Exception, texts: tuple[str, ...]) -> Problem:
    """Return which part of Ray was late; where none was, Ray's last words."""
    own = f"{type(error).__name__}: {error}"
    for pattern, found, variable in _LATE:
        if re.search(pattern, own):
            longer = f", or give it longer ({variable}=300)" if variable else ""
            return Problem(
                _MACHINE, f"{found}{_load()}", "a Ray that comes up", f"end other work on this machine{longer}"
            )
    last = [line for text in texts for line in text.splitlines() if line.strip()]
    words = " ".join(own.split()) if str(error).strip() else (last or [own])[-1]
    return Problem("ray.init", words[:_TEXT], "a Ray that comes up", "remove the cause, give the same command")


def _load() -> str:
    """Return what keeps a machine busy that has more to do than cores, as an addition to what was late."""
    waiting, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f" in time: {waiting:.0f} processes want to run on {cores} cores" if waiting > cores else ""


def _logs(folder: Path) -> tuple[str, ...]:
    """Return the ends of the logs of Ray's processes."""
    texts = []
    for log in sorted(folder.glob("session_2*/logs/*.*")):
        try:
            texts.append("\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]))
        except OSError:  # it is a pipe or has just gone
            continue
    return tuple(texts)
