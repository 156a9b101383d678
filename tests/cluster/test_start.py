"""A local Ray that does not come up: once more, then the cause, in a real process."""

import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.commands import Command
from uncseg.cluster.environment import PREFIX
from uncseg.cluster.local_ray import _private_folder
from uncseg.errors import ProblemsFound

SESSION = """
from uncseg.cluster.session import ray_session
with ray_session("local", num_cpus=1):
    import ray
    print("nodes:", len(ray.nodes()))
"""
KILLED = """
import os, signal
from uncseg.cluster.local_ray import _private_folder
with _private_folder() as folder:
    (folder / "token").write_text("secret")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temp(monkeypatch):
    """A folder with a short path for all that local Rays write."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def kill_dashboard(temp):
    """Kill the dashboard of a Ray below ``temp``; returns whether there was one."""
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(temp) in words and "dashboard.py" in words:
            with suppress(psutil.Error):
                process.kill()
                return True
    return False


@pytest.mark.slow
def test_a_ray_whose_dashboard_dies_is_started_once_more(temp, tmp_path):
    command = Command([sys.executable, "-c", SESSION], tmp_path / "log", [temp])
    command.wait_until(lambda: kill_dashboard(temp))
    command.require()
    assert "its dashboard did not come up" in command.output
    assert "trying once more" in command.output
    assert "nodes: 1" in command.output
    assert list(temp.iterdir()) == []


def test_one_that_does_not_come_up_again_is_said_in_one_problem(temp, tmp_path, experiment_file, four_cases):
    file = experiment_file(four_cases, storage={"path": str(tmp_path / "runs")})
    variables = {"RAY_TMPDIR": str(temp), "RAY_gcs_server_port_wait_time_s": "0"}
    words = Command([sys.executable, "-m", "uncseg.cli", "prepare", file], tmp_path / "log", variables=variables)
    assert words.end() == 1
    assert words.words.count("trying once more") == 1
    for text in ("The local Ray did not start. (1 problem)", "its server (GCS) did not come up"):
        assert text in words.words
    assert "Traceback" not in words.output
    assert list(temp.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/proc/uncseg")
    with pytest.raises(ProblemsFound, match="RAY_TMPDIR: found /proc/uncseg") as refused, _private_folder():
        pass
    assert refused.value.exit_code == 1


def test_folders_of_killed_commands_are_removed_and_those_of_running_ones_stay(temp, tmp_path):
    """Whoever made the other ones: the temporary folder is everybody's, and results may lie in it too."""
    new = temp / f"{PREFIX}12345678"
    new.mkdir()  # empty: it has just been made
    results = [temp / "uncseg-out/case.nii.gz", temp / f"{PREFIX}out/case.nii.gz", temp / f"{PREFIX}a/token/mine"]
    results.append(results[-1].parents[1] / "notes")
    for file in results:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    there = set(temp.iterdir())
    killed = Command([sys.executable, "-c", KILLED], tmp_path / "log")
    assert killed.end() == -signal.SIGKILL
    (left,) = set(temp.iterdir()) - there
    with _private_folder() as first:
        (first / "token").touch()
        with _private_folder() as second:
            assert set(temp.iterdir()) == {*there, first, second}
            assert left not in (first, second)
    assert set(temp.iterdir()) == there
    assert all(file.is_file() for file in results)
