"""The server of ``uncseg ui``, a real one, when the command is killed."""

import contextlib
import signal
import subprocess
import sys

import psutil
import pytest

from support.commands import start_uncseg
from support.progress import wait_until
from support.servers import answers, free_port
from support.written_runs import train
from uncseg.tracking import watched_server


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_takes_its_server_with_it(run, make_syncer, tmp_path, number):
    syncer = make_syncer()
    train(run, 0, 2)
    assert syncer.push_once()
    port = free_port()
    ui = start_uncseg("ui", run.root, "--no-browser", "--port", port, log=tmp_path / "ui.log")
    servers = []
    try:
        ui.wait_until(lambda: "Ctrl-C ends it" in ui.output)
        servers = psutil.Process(ui.pid).children(recursive=True)
        assert any(c.laddr.port == port for one in servers for c in one.net_connections())
        ui.process.send_signal(number)
        ui.end()
        wait_until(lambda: not any(map(lives, servers)))
        assert not answers(f"http://127.0.0.1:{port}/health")
    finally:
        ui.kill_group()
        for server in servers:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.kill()


def test_a_server_that_ends_by_itself_says_the_last_line():
    """Its reason is what ``uncseg ui`` shows."""
    server = [sys.executable, "-c", "import sys; print('the reason', file=sys.stderr); sys.exit(3)"]
    command = [sys.executable, "-m", watched_server.__name__, *server]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watched:
        assert watched.stderr.read() == "the reason\n"
        assert watched.wait() == 3
