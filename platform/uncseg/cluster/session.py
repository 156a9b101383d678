"""A Ray to work on: the running one, or a local one that ends with the command."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

import uncseg
from uncseg.errors import Problem, ProblemsFound

UNDER_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the command of a job


@contextmanager
def ray_session(
    address: str | None, num_cpus: int | None = None, show_worker_logs: bool = False, dashboard: bool = True
) -> Iterator[bool]:
    """Connect to Ray for a block; what was started here ends with it, what ran before goes on.

    A Ray that this process is connected to already is used as it is. Yields whether Ray is the block's own.

    Args:
        address: "auto" or HOST:PORT of a running cluster; "local": a Ray of this machine; None: RAY_ADDRESS if set,
            else local. The command of a job works where it runs, whatever is said here.
        num_cpus: CPUs of a local Ray; None: all. GPUs are found by Ray.
        show_worker_logs: print what workers print.
        dashboard: of a local Ray; without it Ray starts sooner, but GPUs of stopped trials never come back.

    Raises:
        ProblemsFound: where no cluster answers at the address.
    """
    if ray.is_initialized():
        yield False
        return
    # Ray warns of what it will do in later versions; the pinned one does not do it
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    if UNDER_A_JOB in os.environ:  # an address kept with a run may be that of a cluster that is gone
        address = None
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _local_access(address):
        _connect(address, num_cpus, show_worker_logs, dashboard)
        try:
            yield address == "local"
        finally:
            ray.shutdown()


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM (``ray job stop``, a scheduler's time limit) is what Ctrl-C is: KeyboardInterrupt."""
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


@contextmanager
def _local_access(address: str) -> Iterator[None]:
    """Ray starts a local cluster with tokens and submits jobs without; one of this machine only needs none."""
    if address != "local" or "RAY_AUTH_MODE" in os.environ:
        yield
        return
    os.environ["RAY_AUTH_MODE"] = "disabled"
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_MODE"]


def _connect(address: str, num_cpus: int | None, show_worker_logs: bool, dashboard: bool) -> None:
    if address == "local":
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            log_to_driver=show_worker_logs,
            logging_level=logging.ERROR,
        )
        return
    try:
        ray.init(
            address=address,
            log_to_driver=show_worker_logs,
            logging_level=logging.ERROR,
            # nodes need what the package needs, and not the package: they get this very copy
            runtime_env={"py_modules": [str(Path(uncseg.__file__).parent)]},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        what = str(error).strip().splitlines()[0]
        where = "resources.ray_address (or RAY_ADDRESS)"
        problem = Problem(where, f"{address}: {what}", "a running Ray", "start it, or remove the address")
        raise ProblemsFound("There is no Ray to work on.", [problem]) from error
