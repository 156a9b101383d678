"""The server of ``uncseg ui``, a real one, when the command is killed."""

import contextlib
import signal

import psutil
import pytest

from support.commands import start_uncseg
from support.progress import wait_until
from support.servers import answers, free_port
from support.written_runs import train


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
