"""The ``uncseg`` command as a process: it listens to Ctrl-C and SIGTERM before anything that takes time is imported."""

import _signal  # type: ignore[import-not-found]  # ``signal`` without its enumerations, whose import takes as long as all that runs until here
import os


def _stop(_number: int, _frame: object) -> None:
    """Answer a signal until :mod:`uncseg.stopping` does; it has the same line and code."""
    for number in (_signal.SIGINT, _signal.SIGTERM):  # another one says nothing more
        _signal.signal(number, _signal.SIG_IGN)
    os.write(2, b"stopped; the same command goes on from here\n")
    os._exit(130)


def main() -> None:
    """Run the command line with the arguments of the process."""
    for number in (_signal.SIGINT, _signal.SIGTERM):
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _stop)
    from uncseg import stopping

    stopping.listen()
    from uncseg.cli import main as run

    run()


if __name__ == "__main__":
    main()
