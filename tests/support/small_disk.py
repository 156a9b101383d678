"""A disk of a few hundred megabytes that a test fills and frees while commands work on it."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

CHUNKS = (2**20, 2**12, 1)


class SmallDisk:
    """A folder for commands to work in.

    Args:
        folder: as the commands see it.
        holder: the process that holds the mount; None: a plain folder, which cannot be filled.
    """

    def __init__(self, folder, holder=None):
        self.folder = folder
        self.inside = () if holder is None else ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt")
        """What a command line begins with to see the disk."""
        self.seen = folder if holder is None else Path(f"/proc/{holder.pid}/root{folder}")
        """The folder as this process sees it."""
        self.can_be_filled = holder is not None
        self._ballast = self.seen / "ballast"

    def resize(self, size):
        """Give it another size, as mount takes it."""
        subprocess.run([*self.inside, "mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def fill(self):
        """Leave no byte free."""
        with self._ballast.open("wb", buffering=0) as stream:
            for size in CHUNKS:
                with contextlib.suppress(OSError):
                    while stream.write(bytes(size)) == size:
                        pass

    def free(self):
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder, size):
    """Make a disk of ``size`` (as mount takes it) that only commands started with its ``inside`` see.

    Where mounting is not allowed, or these tools are absent, it is a plain folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("nsenter")):
        yield SmallDisk(folder)
        return
    script = f"mount -t tmpfs -o size={size} none '{folder}' && echo ready && exec sleep infinity"
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        yield SmallDisk(folder, holder if holder.stdout.readline() == "ready\n" else None)
    finally:
        holder.kill()
        holder.wait()
