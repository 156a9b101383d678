"""Running the command as a user does, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import SimpleITK as sitk

UNCSEG = str(Path(sys.executable).with_name("uncseg"))


def environment():
    return os.environ | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def run_uncseg(*arguments, limit_s):
    """The finished process; its output is text."""
    command = [UNCSEG, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=limit_s)


def assert_same_geometry(file, own):
    """The image file lies exactly where the image does."""
    image = sitk.ReadImage(str(file))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, what)() == getattr(own, what)(), f"{file}: {what}"
