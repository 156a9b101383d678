"""Errors for users: all problems at once, each with its place, what was found, what is expected, and advice."""

import difflib
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

MOST_SHOWN = 20
"""Problems of one kind that are listed; the others are counted."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        where: the file, or the field of an experiment (``loss.unc_weight``).
        found: what is there now.
        expected: what should be there.
        advice: what to do about it, in the imperative mood.
    """

    where: str
    found: str
    expected: str
    advice: str


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text; its type if it has no text."""
    return (str(error).strip() or repr(error)).splitlines()[0]


class ProblemsFound(Exception):
    """Work cannot start or continue; the command line prints ``problems`` as one table.

    Args:
        title: one sentence that says what is impossible.
        problems: all problems, never empty.
        exit_code: 2 if the request itself was wrong, 1 if the data or the work failed.
    """

    def __init__(self, title: str, problems: Sequence[Problem], exit_code: int = 2) -> None:
        # Exception gets every argument so that the error survives pickling on its way back from a Ray task
        super().__init__(title, list(problems), exit_code)
        self.title = title
        self.problems = list(problems)
        self.exit_code = exit_code

    def __str__(self) -> str:
        lines = [f"{p.where}: found {p.found}; expected {p.expected}; {p.advice}" for p in self.problems]
        return "\n".join([self.title, *lines])


class DamagedFile(ProblemsFound):
    """A file of ours cannot be read back: it is empty, truncated, not UTF-8, or of another shape (exit code 1)."""

    @classmethod
    def of(cls, file: PathLike[str], found: str, expected: str, advice: str) -> "DamagedFile":
        """Return the error of one file; ``advice`` says what makes the file again."""
        problem = Problem(str(file), found, expected, advice)
        return cls(f"{Path(file).name} cannot be read.", [problem], exit_code=1)


_STORAGE = {
    code
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "ESTALE", "ENODEV")
    if (code := getattr(errno, name, None)) is not None
}
LONGEST_PATH = 500
"""Letters of a path in a problem."""


def storage_error(error: OSError) -> ProblemsFound | None:
    """Return what a full, read-only or broken disk means to people (exit code 1); None if the cause is another one.

    A folder in the place of a file, or the reverse, has exit code 2.
    """
    name = error.filename2 or error.filename
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST) and isinstance(name, str | Path):
        path = Path(name)
        there = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
        if error.errno == errno.EEXIST and there.is_dir():  # a new folder was to be made: nothing is in its place
            return None
        kinds = ("a folder", "a file") if there.is_dir() else ("a file", "a folder")
        problem = Problem(str(there), *kinds, "move it away; the same command goes on from here")
        return ProblemsFound("A file cannot be read or written.", [problem])
    if error.errno not in _STORAGE:
        return None
    where = str(error.filename or "the storage")
    where = where if len(where) <= LONGEST_PATH else f"{where[:LONGEST_PATH]}…"
    advice = "free space, or repair the storage or its permissions; the same command goes on from here"
    problem = Problem(where, error.strerror or str(error), "storage that can be read and written", advice)
    return ProblemsFound("A file cannot be read or written.", [problem], exit_code=1)


def raise_if_any(problems: Sequence[Problem], title: str, exit_code: int = 2) -> None:
    """Raise :class:`ProblemsFound` unless there are no problems."""
    if problems:
        raise ProblemsFound(title, problems, exit_code)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Return names as text: the first ones, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def similar(found: str, known: Iterable[str]) -> str | None:
    """Return the most similar of the known names, in upper or lower case; None where none is similar."""
    by_lower = {name.lower(): name for name in known}
    closest = difflib.get_close_matches(found.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[closest[0]] if closest else None


def did_you_mean(found: str, known: Iterable[str], otherwise: str) -> str:
    """Return advice that names the most similar of the known names; ``otherwise`` where none is similar."""
    name = similar(found, known)
    return otherwise if name is None else f"did you mean {name}?"


def similar_path(path: Path, otherwise: str) -> str:
    """Return advice that names what lies beside a path that does not exist and has a similar name."""
    try:
        beside = [] if path.exists() else [one.name for one in path.absolute().parent.iterdir()]
    except OSError:
        return otherwise
    name = similar(path.name, beside)
    return otherwise if name is None else f"did you mean {path.with_name(name)}?"


def first_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems of one kind, of which the last ones are counted if there are many."""
    if len(problems) <= MOST_SHOWN:
        return list(problems)
    last = problems[MOST_SHOWN - 1]
    more = Problem(last.where, f"{len(problems) - MOST_SHOWN + 1} more of this kind", last.expected, last.advice)
    return [*problems[: MOST_SHOWN - 1], more]
