"""``uncseg ui``: MLflow's pages of a run, on this machine alone."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

from mlflow.exceptions import MlflowException

from uncseg.cluster.session import terminated_like_ctrl_c
from uncseg.console import console
from uncseg.errors import Problem, ProblemsFound
from uncseg.layout import BenchmarkFolder, RunFolder, SweepFolder
from uncseg.tracking.destination import open_store
from uncseg.tracking.mlflow_internals import UI_MODE
from uncseg.tracking.record import MlflowRecord

LOOPBACK = "127.0.0.1"
PORTS = range(5000, 5100)
STARTS_WITHIN_S, ENDS_WITHIN_S = 120, 10


@dataclass(frozen=True)
class Shown:
    """What is to be seen, and where MLflow keeps it."""

    tracking_uri: str
    page: str
    """Of the run, after the server's address."""


def show_run(root: Path, port: int | None = None, browser: bool = True) -> int:
    """Open a run's, a sweep's or a benchmark's page; for a database by a server on the loopback address, until Ctrl-C.

    Args:
        root: folder of a run, a sweep or a benchmark.
        port: of the server; None: the first free one from 5000 on.
        browser: open it in one, where there is one.

    Raises:
        ProblemsFound: where MLflow has nothing of the run, cannot be started, or the port is taken.
    """
    shown = _find(root)
    if shown.tracking_uri.startswith("http"):
        _open(shown.tracking_uri.rstrip("/") + shown.page, browser)
        return 0
    console.print("starting MLflow's server …")
    with terminated_like_ctrl_c(), _server(shown.tracking_uri, _free_port(port)) as (address, process):
        _open(address + shown.page, browser)
        console.print("Ctrl-C ends it")
        try:
            process.wait()
        except KeyboardInterrupt:
            return 0
    return 1


def _find(root: Path) -> Shown:
    folder = root.resolve()
    run = RunFolder(folder)
    if not any(
        file.is_file() for file in (run.experiment, SweepFolder(folder).content, BenchmarkFolder(folder).content)
    ):
        problem = Problem(str(root), "no run, sweep or benchmark", "the folder of one", "give RUNS/NAME")
        raise ProblemsFound("There is nothing to show.", [problem])
    record = MlflowRecord.read(run.manifest)
    page = _page(record) if record.parent.run_id else None
    if page is None:
        problem = Problem(str(root), "nothing in MLflow", "a run that MLflow holds", f"first: uncseg sync {root}")
        raise ProblemsFound("There is nothing to show.", [problem], exit_code=1)
    return Shown(record.tracking_uri, f"/{page}{UI_MODE}")


def _page(record: MlflowRecord) -> str | None:
    """Address of the run's page after the server's and a slash; None if MLflow does not have the run."""
    uri, run_id = record.tracking_uri, record.parent.run_id
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None  # opening would make an empty one
    try:
        store = open_store(uri, record.experiment)
        return store.run_page(run_id) if store.has_run(run_id) else None
    except MlflowException as error:
        problem = Problem(uri, str(error).splitlines()[0], "an MLflow that answers", "start it")
        raise ProblemsFound("MLflow cannot be reached.", [problem], exit_code=1) from error


def _free_port(asked: int | None) -> int:
    for port in PORTS if asked is None else (asked,):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    found = f"port {asked if asked is not None else f'{PORTS[0]} to {PORTS[-1]}'}, taken"
    raise ProblemsFound("There is no port.", [Problem("--port", found, "a free port", "give another: --port 5200")])


@contextmanager
def _server(tracking_uri: str, port: int) -> Iterator[tuple[str, subprocess.Popen]]:
    """MLflow's own server, ended with the block; (its address, its process)."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    # the address may stand in a list of processes, and the loopback address is open to all of this machine's users
    environment["MLFLOW_BACKEND_STORE_URI"] = tracking_uri
    # MLflow means to write beside where it was started
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=environment, cwd=elsewhere, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(f"http://{LOOPBACK}:{port}", process, log)
            yield f"http://{LOOPBACK}:{port}", process
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """End a server and its workers, by force where it takes its time."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for(address: str, process: subprocess.Popen, log) -> None:  # type: ignore[no-untyped-def]
    last = time.monotonic() + STARTS_WITHIN_S
    direct = build_opener(ProxyHandler({}))  # what http_proxy names does not know this machine's own servers
    while process.poll() is None and time.monotonic() < last:
        try:
            direct.open(f"{address}/health", timeout=5)
        except (URLError, OSError):
            time.sleep(0.2)
        else:
            return
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines() or ["nothing"]
    how = "ended" if process.poll() is not None else f"did not answer in {STARTS_WITHIN_S} s"
    problem = Problem(address, f"MLflow's server {how}: {said[-1]}", "a server that answers", "see the reason")
    raise ProblemsFound("MLflow's pages cannot be shown.", [problem], exit_code=1)


def _open(address: str, browser: bool) -> None:
    console.print(f"MLflow:  {address}", soft_wrap=True)
    if browser:
        webbrowser.open(quote(address, safe=":/#?=&@"))
