"""Waiting for slow work without a clock: as long as it goes on, however slow the machine, it is waited for."""

import time
from pathlib import Path

import pytest

PATIENCE_S = 900
"""Seconds without any progress after which work counts as stuck."""


class Progress:
    """Files that grow, or come and go, while work goes on.

    Args:
        watched: files and folders; a folder stands for all files below it.
        patience_s: seconds without a change after which :meth:`require` fails.
    """

    def __init__(self, *watched, patience_s=PATIENCE_S):
        self.watched = [Path(path) for path in watched]
        self.patience_s = patience_s
        self.state = self._look()
        self.changed = self.looked = time.monotonic()

    def require(self, describe):
        """Fail the test where nothing has changed for too long.

        Args:
            describe: called without arguments for the text that says what was waited for, and what it said last.
        """
        now = time.monotonic()
        if now - self.looked < 1:  # looking costs a walk through the folders
            return
        self.looked, state = now, self._look()
        if state != self.state:
            self.state, self.changed = state, now
        elif now - self.changed > self.patience_s:
            pytest.fail(f"no progress for {self.patience_s} s: {describe()}", pytrace=False)

    def _look(self):
        found = {}
        for root in self.watched:
            for path in (root, *(root.rglob("*") if root.is_dir() else ())):
                try:
                    status = path.stat()
                except OSError:  # it has just been renamed or removed
                    continue
                found[path] = (status.st_size, status.st_mtime_ns)
        return found


def wait_until(condition, *watched):
    """Return the first true result of ``condition()``; fail where the watched files do not change for too long."""
    progress = Progress(*watched)
    while not (found := condition()):
        progress.require(lambda: f"waiting for changes of {', '.join(map(str, watched))}")
        time.sleep(0.01)
    return found


def tail(text, lines=60):
    """Return the last lines of a log."""
    return "\n".join(text.splitlines()[-lines:])


def start_with_retries(what, start, attempts=3):
    """Return what ``start()`` returns, called again where it raises.

    A service that is late on a loaded machine, or whose port has just been taken, is started anew instead of failing
    every test that uses it. Where no attempt succeeds, each of those tests names this one cause.

    Args:
        what: the service's name.
        start: called without arguments; each call takes fresh ports and folders.
        attempts: how often it is called at most.
    """
    for attempt in range(1, attempts + 1):
        try:
            return start()
        except (Exception, pytest.fail.Exception) as error:
            if attempt == attempts:
                cause = f"{type(error).__name__}: {tail(str(error), 20)}"
                pytest.fail(f"{what} did not start in {attempts} attempts; the last one: {cause}", pytrace=False)
    return None
