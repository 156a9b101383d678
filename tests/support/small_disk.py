"""A real disk that is small, seen by one process and its children."""

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk: its folder, as the processes see it that ``inside`` starts, and as all others see it."""

    pid: int
    folder: Path
    inside: tuple[str, ...]
    """A command line that runs another one where the disk is mounted."""
    seen: Path


@contextlib.contextmanager
def mounted(folder, size):
    """Mount a disk of ``size`` (as ``mount`` takes it) on a folder within the block; it needs root."""
    folder.mkdir()
    script = f"mount -t tmpfs -o size={size} none {folder} && echo ready && exec sleep infinity"
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        if holder.stdout.readline() != "ready\n":
            pytest.skip("mounting needs root")
        inside = ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt")
        yield SmallDisk(holder.pid, folder, inside, Path(f"/proc/{holder.pid}/root{folder}"))
    finally:
        holder.kill()
        holder.wait()


def resize(disk, size):
    """Give a mounted disk another size."""
    subprocess.run([*disk.inside, "mount", "-o", f"remount,size={size}", str(disk.folder)], check=True)
