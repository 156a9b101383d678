"""Servers and databases of another MLflow version are refused before anything is written."""

import socket
import sqlite3
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from support.commands import run_uncseg
from support.written_runs import train
from uncseg.errors import ProblemsFound
from uncseg.tracking.destination import open_store


class Another(BaseHTTPRequestHandler):
    """Answers as an MLflow server does when asked for its version."""

    def do_GET(self):
        allowed = self.server.password is None or self.headers["Authorization"] == self.server.password
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(self.server.version.encode())
        self.server.asked.append(self.path)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server_of():
    servers = []
    with ThreadPoolExecutor(1) as pool:

        def start(version, password=None):
            server = HTTPServer(("127.0.0.1", 0), Another)
            server.version, server.asked, server.password = version, [], password
            servers.append(server)
            pool.submit(server.serve_forever)
            return server

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize("version", ["2.9.2", "4.0.0"])
def test_a_server_of_another_version_is_refused(server_of, version):
    server = server_of(version)
    uri = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(ProblemsFound) as caught:
        open_store(uri, "uncseg")
    (problem,) = caught.value.problems
    assert f"{uri}: an MLflow server {version}" in problem.found
    assert "3.0 or newer of the same major version" in problem.expected
    assert "mlflow db upgrade" in problem.advice
    assert server.asked == ["/version"]


def test_the_version_is_asked_with_the_password(server_of, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    server = server_of("2.9.2", "Basic " + b64encode(b"ann:secret").decode())
    with pytest.raises(ProblemsFound, match=r"an MLflow server 2\.9\.2"):
        open_store(f"http://127.0.0.1:{server.server_port}", "uncseg")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:abc", "http://[::1", "http://no such host"])
def test_an_invalid_address_is_refused(uri):
    with pytest.raises(ProblemsFound) as caught:
        open_store(uri, "uncseg")
    assert uri in caught.value.problems[0].found


def test_another_program_on_the_port_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def talk():
            for _ in range(9):
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 this is no web server\r\n")

        with ThreadPoolExecutor(1) as pool:
            pool.submit(talk)
            uri = f"http://127.0.0.1:{other.getsockname()[1]}"
            with pytest.raises(ProblemsFound, match="an MLflow that answers"):
                open_store(uri, "uncseg")
            other.shutdown(socket.SHUT_RDWR)


def test_a_real_server_of_this_version_is_accepted(server_uri):
    assert open_store(server_uri, "uncseg").experiment_id


@pytest.mark.parametrize(
    ("revision", "found", "advice"),
    [
        ("not known here", "of a newer MLflow", "install that MLflow"),
        ("89d4b8295536", "of an older MLflow", "mlflow db upgrade"),  # MLflow 1.0's last but one
    ],
)
def test_a_database_of_another_version_is_refused_and_left_alone(database, run, make_syncer, revision, found, advice):
    make_syncer()
    train(run, 0, 2)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.root.rglob("*"))
    with sqlite3.connect(database) as connection:
        (known,) = connection.execute("select version_num from alembic_version").fetchone()
        connection.execute("update alembic_version set version_num = ?", [revision])
    refused = sync(run, database, code=2)  # in a process of its own: MLflow keeps what it has opened
    output = " ".join(refused.replace("│", " ").split())
    assert all(word in output for word in (found + " " + advice).split())
    assert sorted((path, path.stat().st_mtime_ns) for path in run.root.rglob("*")) == before
    with sqlite3.connect(database) as connection:
        assert connection.execute("select version_num from alembic_version").fetchone() == (revision,)
        connection.execute("update alembic_version set version_num = ?", [known])
    sync(run, database)


def sync(run, database, code=0):
    return run_uncseg("sync", run.root, "--tracking-uri", f"sqlite:///{database}", folder=database.parent, code=code)
