"""Real MLflow servers for the tests, and PostgreSQL for one of them."""

import http.client
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from support.progress import Progress, start_with_retries, tail


def free_port():
    """A TCP port of the loopback address that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(url):
    """Whether a server answers at an address."""
    try:
        urllib.request.urlopen(url, timeout=10)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for a token
    except (OSError, http.client.HTTPException):
        return False
    return True


def postgresql_binaries():
    """Return the folder of PostgreSQL's server as Debian installs it; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgresql(folder):
    """Run a PostgreSQL on the loopback address; yields its address as MLflow takes it."""
    binaries, data, port = postgresql_binaries(), folder / "data", free_port()
    # it refuses to run as root
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder.mkdir(parents=True)
    if user:
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    options = ["--auth", "trust", "--username", "mlflow", "--encoding", "UTF8", "--no-sync", "--no-instructions"]
    with (folder / "log").open("ab") as log:
        subprocess.run(
            [binaries / "initdb", "-D", data, *options], check=True, stdout=log, stderr=log, cwd=folder, **user
        )
        command = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, **user)
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


class MlflowServer:
    """An MLflow server of its own: always on the same port and database, started and killed as often as a test wants.

    Args:
        folder: its log and its artifacts.
        backend: MLflow's --backend-store-uri, or an SQLite file.
    """

    def __init__(self, folder, backend):
        self.folder = folder
        self.backend = f"sqlite:///{backend}" if isinstance(backend, Path) else backend
        self.port = None
        self.process = None

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Start it, wait until it answers, and return its address; a first start chooses the port."""
        if self.port is None:
            start_with_retries("an MLflow server", self._start_on_a_free_port)
        else:
            self._start()
        return self.uri

    def kill(self):
        """Send SIGKILL to the server and its workers."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _start_on_a_free_port(self):
        self.port = free_port()
        try:
            self._start()
        except BaseException:
            self.kill()
            raise

    def _start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.backend]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, env=variables, stdout=output, stderr=output, start_new_session=True
            )
        progress = Progress(self.folder, patience_s=300)
        while not answers(f"{self.uri}/health"):
            if self.process.poll() is not None:
                raise RuntimeError(f"the MLflow server ended:\n{log.read_text()}")
            progress.require(lambda: f"the MLflow server does not answer:\n{tail(log.read_text())}")
            time.sleep(0.1)


@contextmanager
def mlflow_server(folder, backend):
    """A running MLflow server (:class:`MlflowServer`), which ends with the block."""
    server = MlflowServer(folder, backend)
    try:
        server.start()
        yield server
    finally:
        server.kill()
