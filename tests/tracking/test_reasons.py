"""MLflow that does not answer: the whole reason, and the advice that fits it, before MLflow tries again for minutes."""

import socket
import sqlite3
from contextlib import closing

import pytest

from uncseg.errors import ProblemsFound
from uncseg.tracking.destination import open_store
from uncseg.tracking.reasons import whole_reason
from uncseg.tracking.store import NotStored, storing
from uncseg.tracking.stored_models import find_stored


def problem_of(uri):
    with pytest.raises(ProblemsFound) as caught:
        open_store(uri, "uncseg")
    (problem,) = caught.value.problems
    assert problem.where == "tracking.uri"
    return problem


@pytest.fixture
def uri(new_database):
    return new_database("own")


@pytest.fixture
def file(uri, tmp_path):
    return tmp_path / "own" / "mlflow.db"


def test_a_locked_database_is_waited_for_by_the_user(uri, file, monkeypatch):
    monkeypatch.setattr("uncseg.tracking.reachable.LONGEST_S", 0.1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        problem = problem_of(uri)
        assert "database is locked" in problem.found
        assert "wait for the other process" in problem.advice
        other.execute("ROLLBACK")
    open_store(uri, "uncseg")


@pytest.mark.parametrize("content", [b"no database at all, but a text" * 100, None], ids=["text", "torn"])
def test_a_file_that_is_no_database_is_restored(uri, file, content):
    if content is None:
        content = file.read_bytes()[: file.stat().st_size // 2]
    file.write_bytes(content)
    problem = problem_of(uri)
    assert "restore it from a copy" in problem.advice
    assert file.read_bytes() == content


def test_a_folder_in_place_of_a_database_is_another_path(uri, file):
    file.unlink()
    file.mkdir()
    assert "correct the path" in problem_of(uri).advice


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_a_host_that_nobody_knows_is_a_wrong_name(scheme, monkeypatch):
    def nobody(host, *_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    problem = problem_of(f"{scheme}://mlflow.example.invalid/db")
    assert "mlflow.example.invalid" in problem.found
    assert "cannot be resolved" in problem.found
    assert "correct the name" in problem.advice


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr("uncseg.tracking.reachable.LONGEST_S", 0.1)
    never = socket.socket()

    def wait(*_, **__):
        never.accept()

    never.bind(("127.0.0.1", 0))
    never.listen()
    monkeypatch.setattr(socket, "create_connection", wait)
    assert "timed out" in problem_of("http://mlflow.example.invalid").found
    never.close()


def test_a_port_where_nobody_listens_is_a_server_to_start():
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri in (f"http://127.0.0.1:{port}", f"postgresql+psycopg://u@127.0.0.1:{port}/db"):
        problem = problem_of(uri)
        assert "refused" in problem.found
        assert "start it" in problem.advice


def test_a_model_of_an_mlflow_that_is_away_is_known_too(monkeypatch):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(ProblemsFound, match="start it"):
        find_stored("models:/glioma/1")


def test_a_reason_has_all_its_lines_and_no_secret():
    lines = (
        "(driver.Error) connection failed\n\tfor http://me:hunter2@host\nDETAIL: no such role\n[SQL: SELECT 'hunter2']"
    )
    reason = whole_reason(RuntimeError(lines))
    assert reason == "(driver.Error) connection failed for http://***@host DETAIL: no such role"
    assert whole_reason(RuntimeError()) == "RuntimeError()"
    assert len(whole_reason(RuntimeError("x" * 10_000))) < 600


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[Errno 28] No space left on device", "free some space"),
        ("attempt to write a readonly database", "right to write"),
        ("API request failed with error code 401", "MLFLOW_TRACKING_PASSWORD"),
        ("something else\nin two lines", "free some space or repair the store"),
    ],
)
def test_what_was_not_stored_has_the_advice_of_its_cause(text, advice):
    with pytest.raises(NotStored) as caught, storing("the model"):
        raise OSError(text)
    (problem,) = caught.value.problems
    assert problem.found == " ".join(text.split())
    assert advice in problem.advice
    assert problem.advice.endswith("uncseg sync RUN")
