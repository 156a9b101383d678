"""A Ray to work on: the running one, or a local one that ends with the command."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from uncseg.errors import Problem, ProblemsFound


@contextmanager
def ray_session(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for a block; a Ray that this process is connected to already is used as it is.

    Args:
        address: "auto" or HOST:PORT of a running cluster; None: RAY_ADDRESS if set, else a local Ray.
        num_cpus: CPUs of a local Ray; None: all.

    Raises:
        ProblemsFound: where no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # the dashboard stays on: without it GPUs of a stopped trial never come back
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": True}
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a Ray of this machine, on the loopback address
        ray.init(address="local", num_cpus=num_cpus, dashboard_host="127.0.0.1", **common)
    else:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError) as error:
            what = str(error).strip().splitlines()[0]
            problem = Problem(
                "resources.ray_address", f"{address}: {what}", "a running Ray", "start it, or remove the field"
            )
            raise ProblemsFound("There is no Ray to work on.", [problem]) from error
    try:
        yield
    finally:
        sys.stdout.flush()
        ray.shutdown()
