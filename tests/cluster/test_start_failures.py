"""Why a local Ray did not come up, from its own words and logs, written as Ray 2.60 writes them."""

import errno
import subprocess

import pytest

from uncseg.cluster.start_failures import start_problem

LATE = "The current node timed out during startup. This could happen because some of the raylet failed to startup"
RETRY = (
    "2026-01-01 10:00:00,000\tWARNING http_server_agent.py:79 -- Failed to bind to port 52365 (attempt 1/6). "
    "Retrying in 1.05s. Error: [Errno 98] error while attempting to bind on address ('127.0.0.1', 52365): "
    "address already in use"
)
WITHOUT_PORT = (
    f"{RETRY}\n2026-01-01 10:00:40,000\tERROR http_server_agent.py:85 -- Agent port #52365 failed to bind after 6 "
    "attempts.\nTraceback (most recent call last):\nOSError: [Errno 98] error while attempting to bind on address "
    "('127.0.0.1', 52365): address already in use"
)
NEXT_PORT = (
    "2026-01-01 10:00:00,000\tWARNING http_server.py:480 -- Try to use port 8266: [Errno 98] error while attempting "
    "to bind on address ('127.0.0.1', 8265): address already in use"
)
NO_PORT = (
    "Exception: Failed to find a valid port for dashboard after 50 retries: [Errno 98] error while trying to bind on "
    "address ('127.0.0.1', 8315): address already in use"
)
CHECK = (
    "[2026-01-01 10:00:00,000 C 9 9] (gcs_server) grpc_server.cc:144:  Check failed: server_ Failed to start the grpc "
    "server. The specified port is 6379. If the server startup error message is `Address already in use`, …"
)
UNCAUGHT = "Traceback (most recent call last):\n  sock.bind(sockaddr)\nOSError: [Errno 98] Address already in use\n"


def cause(folder, log, text, error=LATE):
    logs = folder / "session_2026-01-01_10-00-00_000000_1/logs"
    logs.mkdir(parents=True)
    (logs / log).write_text(text)
    return start_problem(Exception(error), folder).found


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("dashboard_agent.log", RETRY),
        ("dashboard_agent.log", WITHOUT_PORT),
        ("dashboard.log", NEXT_PORT),
        ("dashboard.log", f"{NEXT_PORT}\n2026-01-01 10:00:01,000\tINFO http_server_head.py:491 -- Dashboard head"),
    ],
    ids=range(4),
)
def test_a_port_that_was_taken_at_first_is_not_the_cause(tmp_path, log, text):
    assert cause(tmp_path, log, text).startswith("its node did not come up")
    assert cause(
        tmp_path / "own", "gcs_server.out", "", f"Failed to start the dashboard\n{NEXT_PORT}\n{RETRY}"
    ).startswith("its dashboard did not come up")


@pytest.mark.parametrize(
    ("log", "text"),
    [
        ("gcs_server.out", f"{CHECK}\n*** StackTrace ***\n"),
        ("runtime_env_agent.err", UNCAUGHT),
        ("dashboard.log", NO_PORT),
    ],
    ids=range(3),
)
def test_a_port_that_ends_a_process_is_the_cause(tmp_path, log, text):
    assert cause(tmp_path, log, text) == "no free port on 127.0.0.1"


@pytest.mark.parametrize("error", [NO_PORT, "Failed to bind to 127.0.0.1:8265 because it's already occupied."])
def test_what_ray_raises_counts(tmp_path, error):
    assert cause(tmp_path, "gcs_server.out", "", error) == "no free port on 127.0.0.1"


def test_a_program_that_may_not_be_run_is_named_and_not_the_folder(tmp_path):
    program, folder = tmp_path / "gcs_server", tmp_path / "ray"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    with pytest.raises(PermissionError) as caught:
        subprocess.run([program], check=False)
    problem = start_problem(caught.value, folder)
    assert problem.where == str(program)
    assert problem.found == "may not be run"
    other = start_problem(PermissionError(errno.EACCES, "Permission denied", str(folder)), folder)
    assert other.expected == "a folder that you may write to"
