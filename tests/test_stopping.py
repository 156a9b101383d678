"""Signals that come while another one is being answered: one line all the same, and the same exit code."""

import subprocess
import sys

import pytest

from uncseg.stopping import GOES_ON, STOPPED

SECOND = """
import os, signal
from uncseg import stopping

signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background would not hear it
stopping.listen()
isatty, came = os.isatty, []

def in_the_middle(descriptor):
    # asked between the moment in which a signal is known and the moment in which its line is said
    if not came:
        came.append(True)
        {second}
    return isatty(descriptor)

os.isatty = in_the_middle
with {block}:
    try:
        signal.raise_signal(signal.{first})
        signal.pause()
    finally:
        stopping.end_if_stopped()
"""
BLOCKS = ("stopping.telling_of_the_end(lambda: None)", "__import__('contextlib').nullcontext()")


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("second", ["signal.raise_signal(signal.SIGTERM)", "signal.raise_signal(signal.SIGINT)"])
@pytest.mark.parametrize("block", BLOCKS, ids=["telling", "alone"])
def test_a_second_signal_in_the_middle_of_the_first_takes_nothing_from_its_line(first, second, block):
    script = SECOND.format(first=first, second=second, block=block)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (STOPPED, f"{GOES_ON}\n")
