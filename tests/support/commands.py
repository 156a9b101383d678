"""Running the command as a user does, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

from uncseg.cli import main
from uncseg.method import for_nnunet

UNCSEG = str(Path(sys.executable).with_name("uncseg"))


def environment():
    return os.environ | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def uncseg(*arguments):
    """The command's exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code or 0


def run_uncseg(*arguments, limit_s):
    """The finished process; its output is text."""
    command = [UNCSEG, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=limit_s)


def start_uncseg(*arguments, log, before=()):
    """The running process, in a session and process group of its own, its output in the file ``log``.

    ``before`` is a command that runs it. A shell starts what it puts into the background deaf to Ctrl-C, and children
    inherit that: undone here.
    """

    def hear_ctrl_c():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with Path(log).open("w") as output:
        return subprocess.Popen(
            [*before, UNCSEG, *map(str, arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
            preexec_fn=hear_ctrl_c,
        )


def assert_same_geometry(file, own):
    """The image file lies exactly where the image does."""
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


def assert_nnunet_runs(folder, command, *arguments, **variables):
    """One of nnU-Net's own commands ends well, told where our trainer is."""
    script = folder / "nnunet.py"  # a file: nnU-Net's own processes are spawned from it
    script.write_text(NNUNET)
    trainer = Path(for_nnunet.__file__).parent
    line = [sys.executable, str(script), command, *map(str, arguments)]
    variables = environment() | {"nnUNet_extTrainer": str(trainer)} | variables
    done = subprocess.run(line, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
