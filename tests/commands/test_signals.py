"""Ctrl-C and SIGTERM at any moment of a command: one line, exit code 130, and the same command goes on."""

import os
import random
import signal
import subprocess

import psutil
import pytest

from support.commands import UNCSEG, environment, uncseg
from support.progress import wait_until

LINE = "stopped; the same command goes on from here"


def stop(arguments, folder, number, reached, twice=False):
    """Start a command, send it a signal at some moment, and return its exit code and standard error.

    None where it has ended before.

    Args:
        arguments: of ``uncseg``.
        folder: where its standard error goes.
        number: of the signal.
        reached: called with the process; true from the moment on. Or the seconds of CPU that it has used then, which
            tell how far a command has come on a slow machine too.
        twice: the signal follows itself.
    """
    error = folder / "error.txt"
    with error.open("w") as stream:
        process = subprocess.Popen(
            [UNCSEG, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment(),
            start_new_session=True,
            # what a shell starts in the background, and a test below it, would not hear Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        wait_until(lambda: process.poll() is not None or is_reached(process, reached), folder)
        if process.poll() is not None:
            return None
        for _ in range(1 + twice):
            # a terminal sends Ctrl-C to all that a command has started, a scheduler SIGTERM to the command alone
            os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
        return process.wait(60), error.read_text()
    finally:
        process.kill()
        process.wait()


def is_reached(process, reached):
    """Whether a process has come to the moment that :func:`stop` is told."""
    if callable(reached):
        return reached(process)
    return sum(psutil.Process(process.pid).cpu_times()[:2]) >= reached


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("twice", [False, True])
def test_a_command_stops_with_one_line_while_it_still_imports(tmp_path, number, twice):
    random_s = random.Random(f"{number} {twice}")
    arguments = ("phantom", tmp_path / "cases", "--cases", 500, "--size", 64)
    for _ in range(2):
        code, said = stop(arguments, tmp_path, number, random_s.uniform(0.1, 1.2), twice)
        assert (code, said) == (130, f"{LINE}\n")


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
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "cases", tmp_path / "undisturbed")
    ]
    assert files[0] == files[1]
