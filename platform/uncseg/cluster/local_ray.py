"""A local Ray: on the loopback address, with a token of its own, in a folder that only its user can enter."""

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from uncseg import stopping
from uncseg.cluster.environment import (
    MODE,
    PREFIX,
    RAY_FOLDER,
    TOKEN,
    TOKEN_FILE,
    temp_folder,
    token_is_off,
    variables_set,
)
from uncseg.cluster.ray_internals import LOOPBACK_VARIABLE, forget_authentication, job_config, loopback_address
from uncseg.cluster.start_failures import folder_problem, machine_problem, start_problem
from uncseg.console import errors
from uncseg.errors import ProblemsFound

ATTEMPTS = 2
TITLE = "The local Ray did not start."
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
"""Options of every connection to Ray: uncseg prints what matters."""
_TOKEN_NAME = "token"


@contextmanager
def local_ray(num_cpus: int | None, dashboard: bool) -> Iterator[None]:
    """Run a Ray on this machine for a block; one that does not come up is started once more.

    Nothing of it listens on another address than 127.0.0.1. Its token is in a file that only the user can read, and
    goes with it; RAY_AUTH_MODE=disabled leaves the token out.

    Args:
        num_cpus, dashboard: as in :func:`~uncseg.cluster.session.ray_session`.

    Raises:
        ProblemsFound: it did not start, with the cause.
    """
    with ExitStack() as stack:
        for attempt in range(1, ATTEMPTS + 1):
            folder = stack.enter_context(_private_folder())
            if (problem := machine_problem()) is not None:
                raise ProblemsFound(TITLE, [problem], exit_code=1)
            try:
                _write_token(folder / _TOKEN_NAME)
                _start(folder, num_cpus, dashboard)
                break
            except Exception as error:
                # its parts that did start would go on until this process ends
                _end_processes(folder)
                problem = start_problem(error, folder / RAY_FOLDER)
                if attempt == ATTEMPTS:
                    raise ProblemsFound(TITLE, [problem], exit_code=1) from error
                errors.print(f"The local Ray did not start ({problem.found}); trying once more", soft_wrap=True)
        errors.print(_who_may_use_it(folder), soft_wrap=True)
        try:
            yield
        finally:
            ray.shutdown()
            forget_authentication()


def _who_may_use_it(folder: Path) -> str:
    """Return what remains open of the local Ray."""
    if token_is_off():
        return f"Ray on 127.0.0.1, without a token ({MODE}=disabled): every user of this machine can run code as you"
    return f"Ray on 127.0.0.1, with a token ({folder / _TOKEN_NAME}); without it, this machine sees health and metrics"


def _start(folder: Path, num_cpus: int | None, dashboard: bool) -> None:
    """Start Ray in a folder; its processes inherit where the token is, and other children of this process do not."""
    token = None if token_is_off() else str(folder / _TOKEN_NAME)
    mode = "disabled" if token is None else "token"
    variables = {LOOPBACK_VARIABLE: "0", MODE: mode, TOKEN_FILE: token, TOKEN: None}
    with variables_set(variables), loopback_address() as address:
        forget_authentication()
        try:
            ray.init(
                "local",
                num_cpus=num_cpus,
                include_dashboard=dashboard,
                dashboard_host=address,
                job_config=job_config(),
                _node_ip_address=address,
                _temp_dir=str(folder / RAY_FOLDER),
                **QUIET | {"logging_level": logging.CRITICAL},  # the cause is said in one line instead
            )
            logging.getLogger("ray").setLevel(QUIET["logging_level"])
        except BaseException:
            ray.shutdown()
            raise


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder with mode 700; it is removed after the block, or by a later call.

    Raises:
        ProblemsFound: it cannot be made.
    """
    try:
        base = temp_folder()
        base.mkdir(parents=True, exist_ok=True)
        _remove_left(base)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        lock = _locked(folder)
    except OSError as error:
        raise ProblemsFound(TITLE, [folder_problem(error)], exit_code=1) from error

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    try:
        with stopping.at_the_end(remove):
            yield folder
    finally:
        remove()
        os.close(lock)


def _write_token(file: Path) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))


def _locked(folder: Path) -> int:
    """Lock a folder, and return the open file that holds the lock until it is closed or this process ends.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left(base: Path) -> None:
    """Remove the folders of this user's killed commands; one with anything else in it is somebody's."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            names = {path.name for path in folder.iterdir()}
            # an empty one has just been made, and is not locked yet
            if folder.lstat().st_uid == os.getuid() and names and names <= {_TOKEN_NAME, RAY_FOLDER}:
                lock = _locked(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _end_processes(folder: Path) -> None:
    """Kill the processes of a Ray that has not come up: those whose command names its folder."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                process.kill()
