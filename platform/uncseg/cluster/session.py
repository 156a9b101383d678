"""A Ray to work on: a running cluster, or a local Ray that ends with the command."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
<<<<<<< HEAD
from typing import Any
=======
from typing import NoReturn
>>>>>>> 09da25e (A local Ray listens on 127.0.0.1 alone, has a token of its own, and is started once more where it does not come up)

import ray
from ray.exceptions import AuthenticationError

import uncseg
<<<<<<< HEAD
from uncseg import stopping
from uncseg.cluster.ray_internals import JOB_VARIABLE, leave_signals_to_python
=======
from uncseg.cluster.environment import refuse_wrong_environment
from uncseg.cluster.local_ray import QUIET, local_ray
from uncseg.cluster.ray_internals import JOB_VARIABLE
>>>>>>> 09da25e (A local Ray listens on 127.0.0.1 alone, has a token of its own, and is started once more where it does not come up)
from uncseg.errors import Problem, ProblemsFound, first_line


def under_ray_job() -> bool:
    """Return whether this process is the command of a Ray job (``ray job submit``)."""
    return JOB_VARIABLE in os.environ


@contextmanager
def ray_session(address: str | None, num_cpus: int | None = None, dashboard: bool = True) -> Iterator[bool]:
    """Connect to Ray for a block. A Ray that the block starts ends with it; a running cluster goes on.

    If this process is already connected to a Ray, that one is used. Yields whether the block started its own Ray.

    Args:
        address: "auto" or HOST:PORT of a running cluster; "local": a Ray on this machine; None: RAY_ADDRESS if it is
            set, else local. The command of a Ray job always works on the cluster that runs it.
        num_cpus: CPUs of a local Ray; None: all. Ray finds GPUs itself.
        dashboard: start the dashboard of a local Ray. Without it Ray starts sooner, but the GPUs of stopped trials are
            never freed.

    Raises:
        ProblemsFound: no cluster answers at the address, a local Ray does not come up, or the environment holds a
            value that Ray would misunderstand.
    """
    if ray.is_initialized():
        yield False
        return
    # Ray warns about changes in later versions, which the pinned version does not have
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # in a job, an address kept with a run may be that of a cluster that no longer exists
    address = (None if under_ray_job() else address) or os.environ.get("RAY_ADDRESS") or "local"
<<<<<<< HEAD
    with _local_access(address):
        leave_signals_to_python()
        _connect(address, num_cpus, dashboard)
        stopping.listen_again()
        try:
            yield address == "local"
        finally:
            ray.shutdown()


@contextmanager
def _local_access(address: str) -> Iterator[None]:
    """Turn off Ray's tokens for a local Ray: it would start with them and submit jobs without."""
    if address != "local" or "RAY_AUTH_MODE" in os.environ:
        yield
        return
    os.environ["RAY_AUTH_MODE"] = "disabled"
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_MODE"]
=======
    refuse_wrong_environment(address)
    with local_ray(num_cpus, dashboard) if address == "local" else _connected(address):
        yield address == "local"


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Turn SIGTERM (``ray job stop``, a scheduler's time limit) into KeyboardInterrupt within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_without_waiting() -> NoReturn:
    """End the process with exit code 1; the Ray that it started, or its job on a cluster, ends with it.

    After Ctrl-C threads still wait for their folds or trials. Shutting down Ray under them makes it abort the process
    with a C++ error.
    """
    sys.stdout.flush()
    os._exit(1)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a running cluster for a block.
>>>>>>> 09da25e (A local Ray listens on 127.0.0.1 alone, has a token of its own, and is started once more where it does not come up)

    Raises:
        ProblemsFound: no cluster answers at the address, or it asks for another token.
    """
    # nodes need the packages that uncseg needs, but not uncseg: they get this very copy
    environment = {"py_modules": [str(Path(uncseg.__file__).parent)]}
    try:
        ray.init(address, runtime_env=environment, **QUIET)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        where, found = "resources.ray_address (or RAY_ADDRESS)", f"{address}: {first_line(error)}"
        problem = Problem(where, found, "a running Ray", "start it, or remove the address")
        if isinstance(error, AuthenticationError):
            found, expected = f"{address}: Ray refuses the token, or its absence", "the token of that cluster"
            problem = Problem(where, found, expected, "see docs/cluster.md, Who may use it")
        raise ProblemsFound("There is no Ray to work on.", [problem]) from error
    try:
        yield
    finally:
        ray.shutdown()
