"""A server that ends with the command that started it, also where that is killed: ``python -m … COMMAND``.

Standard input is a pipe that the command holds open and never writes to. It breaks when the command ends, however it
ends; then all processes of this one's group get SIGKILL.
"""

import os
import signal
import subprocess
import sys
import threading


def _end_with_the_pipe() -> None:
    os.read(0, 1)  # sys.stdin has a lock, of which Python would die where the server ends first
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the group gets it: the server ends, then this process
    threading.Thread(target=_end_with_the_pipe, daemon=True).start()
    sys.exit(server.wait())
