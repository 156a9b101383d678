"""Running command lines where torch, nnU-Net, Ray and MLflow cannot be imported: what is refused before they are."""

import json
import os
import subprocess
import sys

HEAVY = ("torch", "nnunetv2", "ray", "mlflow")
"""Modules that take seconds."""
COMMANDS = f"""
import contextlib, io, json, sys
class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name in {HEAVY}:
            raise SystemExit("imports " + name)  # and would wait for seconds
sys.meta_path.insert(0, Heavy())
from uncseg.cli import main
ends = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
            code = 0
        except SystemExit as end:
            code = end.code or 0
    ends.append([code, out.getvalue(), err.getvalue()])
json.dump(ends, sys.stdout)
"""


def light_commands(folder, *lines):
    """Return the exit code, the output and the problems of each command line, all run in one process.

    The exit code is ``"imports NAME"`` where a command is about to import a module that takes seconds.

    Args:
        folder: the working directory.
        lines: the arguments of ``uncseg``, as lists of words.
    """
    arguments = json.dumps([[str(word) for word in words] for words in lines])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300", "MLFLOW_TRACKING_URI": ""}
    command = [sys.executable, "-c", COMMANDS]
    done = subprocess.run(command, cwd=folder, env=environment, input=arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def has_words(text, problems):
    """Whether a table of problems says something, wherever its lines are broken."""
    words = "".join(mark for mark in problems if not (mark.isspace() or mark in "│╭╮╰╯─┃'"))
    return text.replace(" ", "").lower() in words.lower()
