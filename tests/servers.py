"""A real MLflow server for the tests."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request


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


def server_starter(folder, database):
    """A function that starts the server, always on the same port and database, and waits until it answers.

    It returns (address, process); a list of the processes is beside it.
    """
    port = free_port()
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
            if answers(f"{uri}/health"):
                return uri, process
        raise RuntimeError((folder / "server.log").read_text())

    return start, processes


def kill(process):
    """SIGKILL to the server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
