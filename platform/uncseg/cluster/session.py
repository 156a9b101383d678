"""A Ray to work on: a running cluster, or a local Ray that ends with the command."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError

import uncseg
from uncseg import stopping
from uncseg.cluster.environment import MODE, refuse_wrong_environment, token_is_off, token_is_on
from uncseg.cluster.local_ray import QUIET, local_ray
from uncseg.cluster.ray_internals import (
    JOB_VARIABLE,
    Answer,
    answer_of,
    job_config,
    leave_signals_to_python,
    server_address,
)
from uncseg.config.secret_addresses import masked, masked_value, secret_in
from uncseg.console import errors
from uncseg.errors import Problem, ProblemsFound, first_line

TITLE = "There is no Ray to work on."
WHERE = "resources.ray_address (or RAY_ADDRESS)"
GUIDE = "docs/cluster.md, Who may use it"


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
    # in a job, an address kept with a run may be that of a cluster that no longer exists
    address = (None if under_ray_job() else address) or os.environ.get("RAY_ADDRESS") or "local"
    refuse_wrong_environment(address)
    if secret_in(address):  # of RAY_ADDRESS: an experiment's was looked at when it was read
        raise _no_cluster(address, "holds a token or a password, which Ray would print")
    if ray.is_initialized():
        yield False
        return
    # Ray warns about changes in later versions, which the pinned version does not have
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    leave_signals_to_python()
    with local_ray(num_cpus, dashboard) if address == "local" else _connected(address):
        stopping.listen_again()
        yield address == "local"


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a running cluster for a block.

    Raises:
        ProblemsFound: no cluster answers at the address, or it asks for another token.
    """
    _require_access(address)
    # nodes need the packages that uncseg needs, but not uncseg: they get this very copy
    environment = {"py_modules": [str(Path(uncseg.__file__).parent)]}
    try:
        ray.init(address, runtime_env=environment, job_config=job_config(), **QUIET)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        raise _no_cluster(address, first_line(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_access(address: str) -> None:
    """Ask a cluster for a sign of life with and without the token, and say who may use it.

    Ray itself would try for minutes, and print stacks of C++ functions.
    """
    try:
        server = server_address(address)
    except (ConnectionError, ValueError) as error:
        raise _no_cluster(address, first_line(error)) from error
    answer = answer_of(server)
    # with "auto" Ray takes a token that is where it looks for it, without being told to
    if answer is Answer.ASKS_FOR_TOKEN and (address != "auto" or token_is_on() or token_is_off()):
        answer = answer_of(server, with_token=True) if token_is_on() else answer
        if answer is Answer.ASKS_FOR_TOKEN:
            found = f"{masked_value(address)} refuses {'the token' if token_is_on() else 'whoever shows no token'}"
            problem = Problem(WHERE, found, "the token of that cluster", f"set {MODE}=token; {GUIDE}")
            raise ProblemsFound(TITLE, [problem])
    elif answer is Answer.OPEN:
        errors.print(
            f"Ray at {masked_value(address)} asks for no token: who reaches its ports can run code there ({GUIDE})",
            soft_wrap=True,
        )
    if answer is Answer.NONE:
        raise _no_cluster(address, f"nothing answers at {server}")


def _no_cluster(address: str, reason: str) -> ProblemsFound:
    shown = masked_value(address)
    problem = Problem(
        WHERE, f"{shown}: {masked(reason.replace(address, shown))}", "a running Ray", "start it, or remove the address"
    )
    return ProblemsFound(TITLE, [problem])
