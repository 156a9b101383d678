"""What Ray reads from the environment, judged before Ray is imported: a wrong word must not open it to others."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from uncseg.errors import Problem, raise_if_any
from uncseg.ownership import is_own_run

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
TEMP = "RAY_TMPDIR"
PREFIX = "uncseg-ray-"
"""Begin of the names of the folders of local Rays."""
RAY_FOLDER = "r"
"""Name of Ray's own folder in such a folder; short, because paths of sockets are."""
TITLE = "Ray would not start."
_MOST_BYTES = 103 if sys.platform == "darwin" else 107  # of the path of a socket


def refuse_wrong_environment(address: str) -> None:
    """Refuse values of variables with which Ray would start open to others, late, or not at all.

    Args:
        address: as in :func:`~uncseg.cluster.session.ray_session`, never None.

    Raises:
        ProblemsFound: each of them.
    """
    problems = [*_of_the_mode(), *(_of_the_folder() if address == "local" else _of_the_token_file())]
    raise_if_any(problems, TITLE, exit_code=1)


def refuse_kept_address(root: Path, address: str | None, overrides: Sequence[str] | None) -> None:
    """Refuse the Ray that a run from someone else names: its owner would run code here, and be told a token.

    Args:
        root: the run's folder.
        address: ``resources.ray_address`` of its experiment.
        overrides: ``FIELD=VALUE`` that the user gave.

    Raises:
        ProblemsFound: the address is neither the user's nor one that only this machine knows ("auto").
    """
    given = any(
        override.partition("=")[0].strip() in ("resources.ray_address", "resources") for override in overrides or ()
    )
    if given or address in (None, "local", "auto") or is_own_run(root):
        return
    found = f"{address}, named by a run that was not made here"
    advice = f"if you trust it: --set resources.ray_address={address}; else --set resources.ray_address=null"
    raise_if_any(
        [Problem("resources.ray_address", found, "an address from you", advice)], "Ray's address is not yours."
    )


def token_is_on() -> bool:
    """Return whether the environment asks for Ray's token; False where it says nothing."""
    return os.environ.get(MODE, "").lower() == "token"


def token_is_off() -> bool:
    """Return whether the environment refuses Ray's token; False where it says nothing."""
    return os.environ.get(MODE, "").lower() == "disabled"


def temp_folder() -> Path:
    """Return the folder for a local Ray's own: RAY_TMPDIR, or TMPDIR where sockets fit into it, or /tmp."""
    if chosen := os.environ.get(TEMP):
        return Path(chosen).absolute()
    try:
        usual = Path(tempfile.gettempdir()).absolute()
    except FileNotFoundError:  # none can be written to
        return Path("/tmp")
    return usual if len(os.fsencode(usual)) + len(_longest_socket()) <= _MOST_BYTES else Path("/tmp")


@contextmanager
def variables_set(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for a block; None: absent."""
    before = {name: os.environ.get(name) for name in values}

    def become(wanted: Mapping[str, str | None]) -> None:
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    become(values)
    try:
        yield
    finally:
        become(before)


def _of_the_mode() -> list[Problem]:
    mode = os.environ.get(MODE)
    if mode is None or token_is_on() or token_is_off():
        return []
    # Ray takes every other word for "disabled"
    return [Problem(MODE, repr(mode), "token or disabled", "correct or remove the variable")]


def _of_the_token_file() -> list[Problem]:
    """Return what is wrong with a token that a cluster will be told; the token itself is never part of it."""
    file = os.environ.get(TOKEN_FILE)
    if not token_is_on() or os.environ.get(TOKEN) or not file:
        return []
    try:
        found = None if Path(file).read_bytes().strip() else "an empty file"
    except OSError as error:
        found = error.strerror or type(error).__name__
    advice = "copy the cluster's token there (docs/cluster.md, Who may use it), or remove the variable"
    return [Problem(TOKEN_FILE, f"{file}: {found}", "a file with the cluster's token", advice)] if found else []


def _of_the_folder() -> list[Problem]:
    folder = temp_folder()
    bytes_used, most = len(os.fsencode(folder)), _MOST_BYTES - len(_longest_socket())
    if bytes_used <= most:
        return []
    expected = f"a path of at most {most} bytes: Ray's sockets lie below it"
    advice = "name a folder with a shorter path, such as /tmp"
    return [Problem(TEMP, f"{folder}: {bytes_used} bytes", expected, advice)]


def _longest_socket() -> str:
    """Return the path of the socket with the longest name in the folder that :func:`temp_folder` returns."""
    return f"/{PREFIX}12345678/{RAY_FOLDER}/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/dash_MetricsHead"
