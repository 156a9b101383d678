"""Ctrl-C and SIGTERM: one line, one exit code, whatever the command is doing.

Every file is whole or absent, and every command goes on where it was stopped. So a signal needs no unwinding, which
imports, thread pools, Ray and MLflow each answer in their own way: the process says its line and ends. Only a block
that has to tell others of it (:func:`telling_of_the_end`) is interrupted by ``KeyboardInterrupt`` and given some time.

This file imports nothing but the standard library's fastest modules: the process listens before anything else is
imported.
"""

import atexit
import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ClassVar, NoReturn

STOPPED = 130
"""Exit code of a command that a signal has stopped, as shells have it for Ctrl-C."""
GOES_ON = "stopped; the same command goes on from here"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 20.0
"""Seconds that a block has to tell others of the end."""


class _State:
    """What is known of this process; a signal concerns a process as a whole."""

    process = 0
    """Id of the process that listens; 0: none. A forked child is another process."""
    line = GOES_ON
    saying = threading.RLock()
    said = False
    answering = False
    """Whether the main thread is in the middle of an answer, in which another signal may reach it."""
    interrupted = False
    blocks = 0
    last_acts: ClassVar[dict[object, Callable[[], None]]] = {}


def listen() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end this process as this page says; call it in the main thread.

    A signal that the process was started without, as ``nohup`` and a shell's background do, stays without effect.
    """
    if _State.process == os.getpid():
        return
    _State.process = os.getpid()
    pipe, end = os.pipe()
    os.set_blocking(end, False)
    # written to in the moment of the signal, even where the main thread is in a call that does not return for minutes
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(pipe,), name="uncseg-stopping", daemon=True).start()
    atexit.register(_let_end)  # the first of these functions is called last
    listen_again()


def listen_again() -> None:
    """Take back the signals after a library has taken them; without effect where this process does not listen."""
    if _State.process == os.getpid() and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_signal)


def _let_end() -> None:
    """Leave signals without effect when the work is done: in its last moments Python would die of them."""
    if _State.process == os.getpid():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def say(line: str) -> None:
    """Set the line that is said on standard error when the process is stopped."""
    _State.line = line


@contextlib.contextmanager
def telling_of_the_end(tell: Callable[[], object]) -> Iterator[None]:
    """Have a signal interrupt the block by ``KeyboardInterrupt``, call ``tell``, and end the process.

    All of that has ``GRACE_S`` seconds, and a second signal ends the process at once.
    """
    _State.blocks += 1
    try:
        yield
    except BaseException:  # libraries make other exceptions of an interrupt
        if _is_said():
            with contextlib.suppress(Exception):
                tell()
            end()
        raise
    finally:
        _State.blocks -= 1


@contextlib.contextmanager
def at_the_end(act: Callable[[], None]) -> Iterator[None]:
    """Have ``act`` called if a signal ends the process within the block, for example to remove a temporary file.

    It is called in any thread, at any moment: it takes no lock and no time.
    """
    key = object()
    _State.last_acts[key] = act
    try:
        yield
    finally:
        _State.last_acts.pop(key, None)


def end() -> NoReturn:
    """End the process as a stopped one, now: threads, exit handlers and other libraries are not waited for."""
    for act in list(_State.last_acts.values()):
        with contextlib.suppress(Exception):
            act()
    os._exit(STOPPED)


def end_if_stopped() -> None:
    """End the process if a signal has come, whatever became of the ``KeyboardInterrupt`` meanwhile."""
    if _is_said():
        end()


def _is_said() -> bool:
    """Return whether a signal has come; where one comes just now, after its line is said."""
    with _State.saying:
        return _State.said


def _say_once() -> None:
    """Say the line, unless it is said; whatever other libraries have to say of the end goes nowhere."""
    with _State.saying, contextlib.suppress(OSError):
        if _State.said:
            return
        _State.said = True
        if os.isatty(1):  # a progress line may be there, and hides the cursor
            os.write(1, b"\r\x1b[2K\x1b[?25h")
        os.write(2, f"{_State.line}\n".encode(errors="replace"))
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    """Answer in the main thread, between two of its instructions."""
    if _State.process != os.getpid():  # a forked child: as if nobody listened
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _State.answering:  # a second signal: the answer to the first ends the process, once its line is said
        return
    _State.answering = True
    _say_once()
    _State.answering = False
    if not _State.blocks:
        end()
    if not _State.interrupted:
        _State.interrupted = True
        raise KeyboardInterrupt


def _watch(pipe: int) -> None:
    """Answer in a thread of its own, at once; the main thread may be in a call that does not return."""

    def next_signal() -> None:
        while os.read(pipe, 1)[0] not in SIGNALS:
            pass  # of a child's end, or a terminal's new size

    next_signal()
    _say_once()
    if _State.blocks and select.select([pipe], [], [], GRACE_S)[0]:
        next_signal()
    end()
