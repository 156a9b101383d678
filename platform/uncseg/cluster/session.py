"""A Ray to work on: a running cluster, or a local Ray that ends with the command."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

import uncseg
from uncseg import stopping
from uncseg.cluster.ray_internals import JOB_VARIABLE, leave_signals_to_python
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
        ProblemsFound: no cluster answers at the address.
    """
    if ray.is_initialized():
        yield False
        return
    # Ray warns about changes in later versions, which the pinned version does not have
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # in a job, an address kept with a run may be that of a cluster that no longer exists
    address = (None if under_ray_job() else address) or os.environ.get("RAY_ADDRESS") or "local"
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


def _connect(address: str, num_cpus: int | None, dashboard: bool) -> None:
    logs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        ray.init(address, num_cpus=num_cpus, include_dashboard=dashboard, dashboard_host="127.0.0.1", **logs)
        return
    # nodes need the packages that uncseg needs, but not uncseg: they get this very copy
    environment = {"py_modules": [str(Path(uncseg.__file__).parent)]}
    try:
        ray.init(address, runtime_env=environment, **logs)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where, found = "resources.ray_address (or RAY_ADDRESS)", f"{address}: {first_line(error)}"
        problem = Problem(where, found, "a running Ray", "start it, or remove the address")
        raise ProblemsFound("There is no Ray to work on.", [problem]) from error
