"""Errors for people: every problem at once, each with where, what was found, what was expected, what to do."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        where: the file, or the field of an experiment (``loss.unc_weight``).
        found: what stands there now.
        expected: what should stand there.
        advice: what to do about it, as an imperative.
    """

    where: str
    found: str
    expected: str
    advice: str


class ProblemsFound(Exception):
    """Work cannot start or go on; the command line prints ``problems`` as one table.

    Args:
        title: one line saying what was being done.
        problems: all of them, never empty.
        exit_code: 2 when the request itself was wrong (the default), 1 when the data or the work failed.
    """

    def __init__(self, title: str, problems: Sequence[Problem], exit_code: int = 2) -> None:
        # every argument goes to Exception so that the error survives pickling on its way back from a Ray task
        super().__init__(title, list(problems), exit_code)
        self.title = title
        self.problems = list(problems)
        self.exit_code = exit_code

    def __str__(self) -> str:
        lines = [f"{p.where}: found {p.found}; expected {p.expected}; {p.advice}" for p in self.problems]
        return "\n".join([self.title, *lines])
