"""Who may use the Ray that a command starts for itself, and the clusters that it finds."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.commands import environment
from uncseg.cluster.environment import refuse_kept_address
from uncseg.cluster.ray_internals import LOOPBACK_VARIABLE, Answer, answer_of
from uncseg.cluster.session import ray_session
from uncseg.errors import ProblemsFound
from uncseg.ownership import make_own

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture
def token(local_ray):
    """The file with the token of the local Ray, of which only Ray's own processes know."""

    @local_ray.remote(num_cpus=0)
    def where():
        return os.environ["RAY_AUTH_TOKEN_PATH"]

    return Path(local_ray.get(where.remote()))


def ask(command, address, home, **variables):
    """Let an unrelated process ask for something with ``ray``; returns its exit code and what it said."""
    own = {name: value for name, value in environment().items() if not name.startswith("RAY_AUTH")}
    # the variable lets it reach the loopback address: Ray would try the machine's other address
    own |= {"HOME": str(home), LOOPBACK_VARIABLE: "0"} | variables
    line = [RAY, *command[:2], "--address", address, *command[2:]]
    ended = subprocess.run(line, env=own, check=False, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout + ended.stderr


def processes():
    """Return this process and those that it has started."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def test_nothing_of_a_local_ray_listens_elsewhere_than_on_the_loopback_address(local_ray):
    pids = {process.pid for process in processes()}
    found = [each for each in psutil.net_connections("inet") if each.pid in pids and each.status == psutil.CONN_LISTEN]
    # server, dashboard, its metrics, node manager, object manager, three of the agents, driver
    assert len(found) >= 9
    assert {each.laddr.ip.removeprefix("::ffff:") for each in found} == {"127.0.0.1"}


def test_a_process_without_the_token_is_refused(local_ray, token, tmp_path):
    server = local_ray.get_runtime_context().gcs_address
    assert answer_of(server) is Answer.ASKS_FOR_TOKEN
    assert answer_of(server, with_token=True) is Answer.OPEN
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    dashboard = f"http://{local_ray.worker._global_node.webui_url}"
    questions = ((["status"], server), (["job", "list"], dashboard))
    for command, address in questions:
        for variables in ({}, wrong):
            code, said = ask(command, address, tmp_path, **variables)
            assert code != 0
            assert "token" in said
        code, said = ask(command, address, tmp_path, **right)
        assert code == 0, said


def test_the_token_is_in_its_file_alone(local_ray, token):
    secret = token.read_bytes()
    assert len(secret) == 64
    assert [stat.S_IMODE(path.stat().st_mode) for path in (token, token.parent)] == [0o600, 0o700]
    files = [path for path in token.parent.rglob("*") if path.is_file()]
    assert len(files) > 10  # Ray's logs are there
    assert [path for path in files if secret in path.read_bytes()] == [token]
    for process in processes():
        try:
            known = str(process.cmdline()) + str(process.environ())
        except psutil.Error:
            continue
        assert secret.decode() not in known
    assert not [name for name in os.environ if name.startswith("RAY_AUTH")]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RAY_AUTH_MODE", "on", ("'on'", "token or disabled")),
        ("RAY_AUTH_MODE", "", ("''", "token or disabled")),
        ("RAY_TMPDIR", "/tmp/" + 30 * "x", ("35 bytes", "shorter path")),
    ],
)
def test_values_that_ray_misunderstands_are_refused(monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ProblemsFound) as refused, ray_session("local"):
        pass
    assert refused.value.exit_code == 1
    (problem,) = refused.value.problems
    assert problem.where == variable
    assert all(word in str(refused.value) for word in words)


def test_the_ray_that_a_run_from_someone_else_names_is_asked_for(tmp_path):
    address, field = "203.0.113.5:6379", "resources.ray_address"
    with pytest.raises(ProblemsFound, match=f"--set {field}={address}"):
        refuse_kept_address(tmp_path, address, ["tracking.uri=x"])
    for own in ("auto", "local", None):
        refuse_kept_address(tmp_path, own, None)
    refuse_kept_address(tmp_path, address, [f"{field}={address}"])
    make_own(tmp_path / "mine")
    refuse_kept_address(tmp_path / "mine", address, None)
