"""MLflow's own server on this machine's loopback address, which shows a database, and the page of a run there."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO
from urllib.request import ProxyHandler, build_opener

from mlflow.exceptions import MlflowException

from uncseg import stopping
from uncseg.config.addresses import sqlite_path
from uncseg.config.secret_addresses import masked
from uncseg.errors import Problem, ProblemsFound
from uncseg.tracking import watched_server
from uncseg.tracking.destination import open_store
from uncseg.tracking.mlflow_internals import UI_MODE, without_credentials
from uncseg.tracking.reasons import problem_of
from uncseg.tracking.record import MlflowRecord

LOOPBACK = "127.0.0.1"
PORTS = range(5000, 5100)
START_TIMEOUT_S, STOP_TIMEOUT_S = 120, 10


def run_page(record: MlflowRecord) -> str | None:
    """Return the path of a run's page on a server that shows its MLflow, or None if MLflow does not have the run.

    Raises:
        ProblemsFound: MLflow cannot be reached.
    """
    uri, run_id = record.tracking_uri, record.parent.run_id
    database = sqlite_path(uri)
    if not run_id or (database is not None and not database.is_file()):  # opening an absent database would create it
        return None
    try:
        store = open_store(uri, record.experiment)
        return f"/{store.run_page(run_id)}{UI_MODE}" if store.has_run(run_id) else None
    except MlflowException as error:
        problem = problem_of(masked(uri), uri, error)
        raise ProblemsFound("MLflow cannot be reached.", [problem], exit_code=1) from error


def free_port(port: int | None) -> int:
    """Return the port if it is free; None: the first free one from 5000 on.

    Raises:
        ProblemsFound: it is taken, or all are.
    """
    for candidate in PORTS if port is None else (port,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind((LOOPBACK, candidate))
                return candidate
    found = f"port {port if port is not None else f'{PORTS[0]} to {PORTS[-1]}'}, taken"
    raise ProblemsFound("There is no port.", [Problem("--port", found, "a free port", "give another: --port 5200")])


@contextmanager
def ui_server(tracking_uri: str, port: int) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run MLflow's server for a block; yields its address and its process.

    Raises:
        ProblemsFound: the server does not start.
    """
    address = f"http://{LOOPBACK}:{port}"
    command = [sys.executable, "-m", watched_server.__name__]
    command += [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    environment = without_credentials(os.environ) | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # not an argument: other users of this machine can list processes, and a database's address may hold a password
    environment["MLFLOW_BACKEND_STORE_URI"] = tracking_uri
    # MLflow writes into the folder in which it is started
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )

        def end_at_once() -> None:
            os.killpg(process.pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)

        with stopping.at_the_end(end_at_once):
            try:
                _wait_for(address, process, log)
                yield address, process
            finally:  # the server and its workers, by force if they do not end in time
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                        os.killpg(process.pid, number)
                        process.wait(STOP_TIMEOUT_S)


def _wait_for(address: str, process: subprocess.Popen, log: IO[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    direct = build_opener(ProxyHandler({}))  # a proxy cannot reach this machine's loopback address
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            direct.open(f"{address}/health", timeout=5)
            return
        time.sleep(0.2)
    log.seek(0)
    last_line = (log.read().decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
    how = "ended" if process.poll() is not None else f"did not answer in {START_TIMEOUT_S} s"
    problem = Problem(address, f"MLflow's server {how}: {last_line}", "a server that answers", "see the reason")
    raise ProblemsFound("MLflow's pages cannot be shown.", [problem], exit_code=1)
