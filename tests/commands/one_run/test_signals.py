"""Ctrl-C and SIGTERM at any moment of a command: one line, exit code 130, and the same command goes on."""

import os
import random
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import yaml

from support.commands import UNCSEG, environment, uncseg
from support.progress import wait_until
from support.small_sweeps import SPACE
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task

GOES_ON = "stopped; the same command goes on from here\n"
STOPPED = "stopped\n"
MOMENTS = 8
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def stop(arguments, folder, number, reached, twice=False):
    """Start a command, send it a signal at some moment, and return its exit code and what it says of that.

    None where it has ended before, or has printed all that it prints and ends well: Python takes a while to end.

    Args:
        arguments: of ``uncseg``.
        folder: where its standard error goes.
        number: of the signal.
        reached: called with the process; true from the moment on. Or the seconds of CPU that it has used then, which
            tell how far a command has come on a slow machine too.
        twice: the signal follows itself.
    """
    output, error = folder / "output.txt", folder / "error.txt"
    with output.open("w") as out, error.open("w") as err:
        process = subprocess.Popen(
            [UNCSEG, *map(str, arguments)],
            stdout=out,
            stderr=err,
            env=environment(PYTHONUNBUFFERED="1"),
            start_new_session=True,
            # what a shell starts in the background, or nohup, would not hear one
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        )
    try:
        wait_until(lambda: process.poll() is not None or is_reached(process, reached), folder)
        if process.poll() is not None:
            return None
        family = psutil.Process(process.pid).children(recursive=True)
        printed = output.read_text()
        for _ in range(1 + twice):
            # a terminal sends Ctrl-C to all that a command has started, a scheduler SIGTERM to the command alone
            os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
        code = process.wait(60)
        wait_until(lambda: not any(map(is_alive, family)), folder)  # Ray's processes end with their command
        is_over = code == 0 and printed and output.read_text() == printed
        return None if is_over else (code, "".join(filter(is_of_the_end, error.read_text().splitlines(True))))
    finally:
        process.kill()
        process.wait()


def is_of_the_end(line):
    """Whether a line is not the one in which a command says, before its work, which Ray it has started."""
    return not line.startswith("Ray on 127.0.0.1, with a token")


def is_alive(process):
    """Whether a process that was once there still works."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_reached(process, reached):
    """Whether a process has come to the moment that :func:`stop` is told."""
    if callable(reached):
        return reached(process)
    return sum(psutil.Process(process.pid).cpu_times()[:2]) >= reached


def ray_works(process):
    """Whether a command's own Ray has begun to start."""
    return any("raylet" in child.name() for child in psutil.Process(process.pid).children(recursive=True))


def a_task_works(process):
    """Whether Ray has given a command's work to a process."""
    return any(
        name.startswith("ray::") and name != "ray::IDLE"
        for child in psutil.Process(process.pid).children(recursive=True)
        for name in command_line(child)[:1]
    )


def command_line(process):
    """Return the words of a process's command line; none where it has just ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def has_children(process):
    """Whether a command has started another one, as ``ui`` starts a server, for which it then waits."""
    return bool(psutil.Process(process.pid).children())


@pytest.fixture(scope="module")
def work(root, run, tmp_path_factory):
    """A folder with a copy of the trained run, cases to predict, and files of a sweep and a benchmark."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("prepared", "mlflow_artifacts"))
    write_phantoms(folder / "few", cases=3, size=28, seed=7, task=paper_task())
    base = yaml.safe_load((root / "experiment.yaml").read_text())
    base |= {"dataset": {"path": str(folder / "cases")}, "storage": {"path": str(folder / "runs")}, "name": "other"}
    files = {
        "other": base,
        "sweep": {"name": "sweep", "base": str(folder / "other.yaml"), "space": SPACE, "trials": 2},
        "benchmark": {
            "name": "benchmark",
            "base": str(folder / "other.yaml"),
            "seeds": [0],
            "trainings": {"plain": {"set": {"model.uncertainty": False}, "maps": ["entropy", "constant"]}},
        },
    }
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


COMMANDS = {
    "check": ("check", "cases"),
    "prepare": ("prepare", "other.yaml"),
    "cross-validate": ("cross-validate", "other.yaml"),
    "evaluate": ("evaluate", "runs/small"),
    "cohort": ("evaluate", "runs/small", "--dataset", "cohort"),
    "predict": ("predict", "runs/small", "few", "out"),
    "score": ("score", "out", "few", "--out", "scores.parquet"),
    "report": ("report", "runs/small"),
    "sync": ("sync", "runs/small"),
    "ui": ("ui", "runs/small", "--no-browser"),
    "sweep": ("sweep", "sweep.yaml"),
    "benchmark": ("benchmark", "benchmark.yaml"),
}


@pytest.mark.parametrize(
    ("name", "number", "reached"),
    [
        ("evaluate", signal.SIGTERM, ray_works),
        ("predict", signal.SIGINT, a_task_works),
        ("ui", signal.SIGINT, has_children),
    ],
)
def test_a_command_at_work_stops_with_one_line(work, tmp_path, monkeypatch, name, number, reached):
    monkeypatch.chdir(work)
    found = stop(COMMANDS[name], tmp_path, number, reached)
    assert found == (130, STOPPED if name == "ui" else GOES_ON)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stops_with_one_line_at_any_moment(work, tmp_path, monkeypatch, name):
    monkeypatch.chdir(work)
    drawn, ends = random.Random(name), 0
    for _ in range(MOMENTS):
        at_work = has_children if name == "ui" else ray_works
        reached = at_work if drawn.random() < 0.2 else 0.2 * (10 if name == "ui" else 100) ** drawn.random()
        found = stop(COMMANDS[name], tmp_path, drawn.choice(SIGNALS), reached, twice=drawn.random() < 0.3)
        ends += found is None
        # until its arguments are read, each command says the same
        assert found in (None, (130, GOES_ON), *([(130, STOPPED)] if name in ("check", "report", "ui") else []))
    assert ends < MOMENTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("twice", [False, True])
def test_a_command_stops_with_one_line_while_it_still_imports(tmp_path, number, twice):
    random_s = random.Random(f"{number} {twice}")
    arguments = ("phantom", tmp_path / "cases", "--cases", 500, "--size", 64)
    for _ in range(2):
        code, said = stop(arguments, tmp_path, number, random_s.uniform(0.1, 1.2), twice)
        assert (code, said) == (130, GOES_ON)


LATE = """
import os, signal, sys
from uncseg.__main__ import main

class Last:
    def __del__(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

last = Last()  # goes when Python itself ends
main()
"""


def test_a_signal_after_the_work_changes_nothing(tmp_path):
    command = [sys.executable, "-c", LATE, "phantom", str(tmp_path / "cases"), "--cases", "1", "--size", "24"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "1 case" in ended.stdout


def test_a_signal_that_the_caller_has_switched_off_stops_nothing(tmp_path):
    """As in what a shell starts in the background, which another Ctrl-C is not meant for."""
    command = [UNCSEG, "phantom", str(tmp_path / "cases"), "--cases", "1", "--size", "24"]
    process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_until(lambda: process.poll() is not None or is_reached(process, 0.2), tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 0


def test_phantoms_go_on_where_they_were_stopped(tmp_path):
    arguments = ("phantom", tmp_path / "cases", "--cases", 8, "--size", 32)
    written = lambda _process: len(list((tmp_path / "cases").rglob("*.nii.gz"))) >= 9  # noqa: E731
    assert stop(arguments, tmp_path, signal.SIGTERM, written)[0] == 130
    uncseg(*arguments)
    uncseg("phantom", tmp_path / "undisturbed", *arguments[2:])
    files = [
        {
            file.relative_to(folder): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and file.name[0] != "."
        }
        for folder in (tmp_path / "cases", tmp_path / "undisturbed")
    ]
    assert files[0] == files[1]
