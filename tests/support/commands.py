"""Running ``uncseg`` as a user does: in this process, or in a process of its own whose output is a file."""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk

from support.progress import Progress, tail
from uncseg.cli import main
from uncseg.method import for_nnunet

UNCSEG = str(Path(sys.executable).with_name("uncseg"))
_numbers = itertools.count()


def environment(**more):
    """Return the environment variables of a process that a test starts."""
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


def uncseg(*arguments, code=0):
    """Run a command in this process, and return what it printed, on standard output and standard error together.

    Where it ends with another exit code than ``code``, the test fails and shows the output.
    """
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    if (ended.value.code or 0) != code:
        line = " ".join(map(str, arguments))
        pytest.fail(f"uncseg {line} ended with {ended.value.code or 0}:\n{tail(output.getvalue())}", pytrace=False)
    return output.getvalue()


class Command:
    """A process whose output goes to a file; it is waited for as long as it makes progress.

    Args:
        arguments: the command line.
        log: the file of its output, standard error included.
        watched: files and folders that change while it works, beside the log.
        before: a command line that runs it.
        cwd: its working directory.
        variables: environment variables.
    """

    def __init__(self, arguments, log, watched=(), before=(), cwd=None, variables=None):
        self.arguments = [*map(str, before), *map(str, arguments)]
        self.log = Path(log)

        def hear_ctrl_c():
            """Undo what a shell does to what it starts in the background, and children inherit."""
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                self.arguments,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment() | (variables or {}),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=hear_ctrl_c,
            )
        self.pid = self.process.pid
        self.progress = Progress(self.log, *watched)

    @property
    def output(self):
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def words(self):
        """What it has printed, without line breaks and the frames of tables."""
        return " ".join(self.output.replace("│", " ").split())

    def describe(self):
        """Return the command line and the end of its output, for a failure."""
        return f"{' '.join(self.arguments)}\n{tail(self.output)}"

    def is_running(self):
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def wait_until(self, condition):
        """Return the first true result of ``condition()``; fail where the command ends before, or is stuck."""
        while not (found := condition()):
            if not self.is_running() and not (found := condition()):
                pytest.fail(f"ended with {self.process.returncode} too early: {self.describe()}", pytrace=False)
            if found:
                break
            self.progress.require(self.describe)
            time.sleep(0.02)  # leaves the cores to the command
        return found

    def end(self):
        """Wait for the end, and return the exit code."""
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.process.wait(0.5)
                self.progress.require(self.describe)
        finally:
            if self.is_running():
                self.kill()

    def require(self, code=0):
        """Wait for the end and return the output; fail, and show it, where the exit code is another."""
        found = self.end()
        if found != code:
            pytest.fail(f"ended with {found}: {self.describe()}", pytrace=False)
        return self.output

    def kill(self):
        """Send SIGKILL to the command and nothing else: a cluster that it works on lives on."""
        self.process.kill()
        self.process.wait()

    def kill_group(self):
        """Send SIGKILL to the command and all that it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def start_uncseg(*arguments, log, watched=None, before=(), **more):
    """Return the running command.

    Args:
        arguments: of ``uncseg``.
        log: the file of its output.
        watched: folders that change while it works; None: the log's folder.
        before: a command line that runs it.
        more: as :class:`Command` takes it.
    """
    watched = [Path(log).parent] if watched is None else watched
    return Command([UNCSEG, *arguments], log, watched, before, **more)


def run_uncseg(*arguments, folder, code=0):
    """Run the command in a process of its own, and return its output.

    Args:
        arguments: of ``uncseg``.
        folder: where its log goes; what changes below it is its progress.
        code: the exit code that it has to end with.
    """
    return start_uncseg(*arguments, log=Path(folder, f"uncseg_{next(_numbers)}.log")).require(code)


def run_process(*arguments, folder, **variables):
    """Run a command line to a good end in a folder, and return its output."""
    log = Path(folder, f"process_{next(_numbers)}.log")
    return Command(arguments, log, [folder], cwd=folder, variables=variables).require()


def assert_same_geometry(file, own):
    """Check that an image file lies exactly where an image does."""
    image = sitk.ReadImage(str(file))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, what)() == getattr(own, what)(), f"{file}: {what}"


# nnU-Net looks for a trainer in all files of its own first, and one of them imports torchvision, which fails where its
# compiled part does not fit torch (a CPU torch beside a CUDA torchvision): the operators that it expects are declared
NNUNET = """
import sys
from importlib.metadata import entry_points
import torch
library = torch.library.Library("torchvision", "FRAGMENT")  # lives as long as its name
for operator in ("nms", "qnms"):
    try:
        import torchvision
    except RuntimeError:
        library.define(f"{operator}(Tensor a, Tensor b, float c) -> Tensor")
if __name__ == "__main__":
    (command,) = entry_points(group="console_scripts", name=sys.argv.pop(1))
    command.load()()
"""


def run_nnunet(folder, command, *arguments, **variables):
    """Run one of nnU-Net's own commands, which is told where our trainer is, to a good end."""
    script = folder / "nnunet.py"  # a file: nnU-Net's own processes are spawned from it
    script.write_text(NNUNET)
    trainer = Path(for_nnunet.__file__).parent
    run_process(sys.executable, script, command, *arguments, folder=folder, nnUNet_extTrainer=str(trainer), **variables)
