"""A real MLflow server for the tests."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request


def server_starter(folder, database):
    """A function that starts the server, always on the same port and database, and waits until it answers.

    It returns (address, process); a list of the processes is beside it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    processes = []

    def start():
        with (folder / "server.log").open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        processes.append(process)
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=10)
            except (urllib.error.URLError, ConnectionError):
                continue
            return uri, process
        raise RuntimeError((folder / "server.log").read_text())

    return start, processes


def kill(process):
    """SIGKILL to the server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
