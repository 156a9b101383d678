"""``uncseg ui`` if there is nothing to show; commands/test_mlflow_pages.py tests that it shows a run."""

import socket

import pytest

from support.written_runs import train
from uncseg.cli import main
from uncseg.console import console


@pytest.fixture
def ui(monkeypatch, capsys):
    """Run the command in this process: (exit code, what it printed)."""

    def run(*arguments):
        monkeypatch.setattr(console, "width", 600)  # no cell wraps
        with pytest.raises(SystemExit) as ended:
            main(["ui", "--no-browser", *map(str, arguments)])
        return ended.value.code, "".join(capsys.readouterr())

    return run


def test_a_folder_without_a_run_is_refused(ui, tmp_path):
    code, output = ui(tmp_path)
    assert code == 2
    assert "no run, sweep or benchmark" in output


def test_a_run_absent_from_mlflow_asks_for_a_sync(ui, run, make_syncer):
    make_syncer()
    train(run, 0, 2)
    code, output = ui(run.root)
    assert code == 1
    assert f"first: uncseg sync {run.root}" in output


def test_a_port_in_use_is_refused(ui, run, make_syncer):
    syncer = make_syncer()
    train(run, 0, 2)
    assert syncer.push_once()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = ui(run.root, "--port", port)
    assert code == 2
    assert f"port {port}, taken" in output


def test_a_missing_database_is_not_created(ui, run, make_syncer, tmp_path):
    database = tmp_path / "gone" / "mlflow.db"
    syncer = make_syncer(uri=f"sqlite:///{database}")
    train(run, 0, 2)
    assert syncer.push_once()
    database.unlink()
    code, output = ui(run.root)
    assert code == 1
    assert "nothing in MLflow" in output
    assert not database.exists()
