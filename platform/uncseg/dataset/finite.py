"""Values that are finite, or a case that is refused by its name: NaN never becomes an answer, such as "no tumour"."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from uncseg.errors import Problem, ProblemsFound

TITLE = "There are values that are not finite."
REPAIR = "set no-data voxels, and values that no scanner gives, to 0; or leave the case out"


class NotFinite(ProblemsFound):
    """Something computed for a case is NaN or infinite; :func:`naming` adds which case it is."""


def count_not_finite(values: np.ndarray) -> int:
    """Return how many values are NaN or infinite: of whole numbers none."""
    return values.size - int(np.count_nonzero(np.isfinite(values))) if values.dtype.kind == "f" else 0


def require_finite(values: np.ndarray, where: str, advice: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        NotFinite: with their number.
    """
    refuse_not_finite(count_not_finite(values), values.size, where, advice)


def refuse_not_finite(wrong: int, values: int, where: str, advice: str) -> None:
    """Raise :class:`NotFinite` if ``wrong`` of a number of values are not finite, and there are any."""
    if wrong:
        raise NotFinite(TITLE, [_problem(wrong, values, where, advice)], exit_code=1)


def _problem(wrong: int, values: int, where: str, advice: str) -> Problem:
    return Problem(where, f"{wrong} of {values} values that are not finite", "finite values", advice)


def require_finite_channels(data: np.ndarray, channels: Sequence[str], advice: str = REPAIR) -> None:
    """Refuse a preprocessed case, (C, D, H, W), with values that are not finite.

    nnU-Net computes in float32, where a value of 1e20 is finite and its square, which a standard deviation needs, is
    not.

    Raises:
        NotFinite: naming each such channel.
    """
    problems = [
        _problem(wrong, channel.size, f"channel {name} after normalisation", advice)
        for name, channel in zip(channels, data, strict=True)
        if (wrong := count_not_finite(channel))
    ]
    if problems:
        raise NotFinite(TITLE, problems, exit_code=1)


@contextmanager
def naming(case_id: str) -> Iterator[None]:
    """Put a case's name before what a block refuses as :class:`NotFinite`, or for a reason that names no case."""
    try:
        yield
    except ProblemsFound as error:
        unnamed = [isinstance(error, NotFinite) or case_id not in problem.where for problem in error.problems]
        if not any(unnamed):
            raise
        problems = [
            replace(problem, where=f"{case_id}, {problem.where}") if without else problem
            for problem, without in zip(error.problems, unnamed, strict=True)
        ]
        raise ProblemsFound(error.title, problems, error.exit_code) from error
