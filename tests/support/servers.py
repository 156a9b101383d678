"""A real MLflow server for the tests."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port():
    """A TCP port of the loopback address that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(url):
    """Whether a server answers there."""
    try:
        urllib.request.urlopen(url, timeout=10)
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for a token
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def postgresql_binaries():
    """Folder of PostgreSQL's server as Debian installs it; None where it is not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgresql(folder):
    """A PostgreSQL of its own on the loopback address; its address, as MLflow takes it."""
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
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def server_starter(folder, backend):
    """A function that starts the server, always on the same port and database, and waits until it answers.

    backend: MLflow's --backend-store-uri, or an SQLite file.

    It returns (address, process); a list of the processes is beside it.
    """
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    backend = f"sqlite:///{backend}" if isinstance(backend, Path) else backend
    command += ["--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    processes = []

    def start():
        with (folder / "server.log").open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        processes.append(process)
        while process.poll() is None:
            if answers(f"{uri}/health"):
                return uri, process
        raise RuntimeError((folder / "server.log").read_text())

    return start, processes


def kill(process):
    """SIGKILL to the server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
