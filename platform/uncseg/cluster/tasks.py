"""Work spread over the cluster: one Ray task a piece, a bounded number in flight, so that memory stays bounded."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import ray

from uncseg.errors import Problem, ProblemsFound

Piece = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""Name, function, arguments."""
Start = Callable[[Callable[..., Any], tuple[Any, ...]], Any]
"""Starts a piece's function with its arguments; gives the reference of its result."""


def run_tasks(
    work: Iterable[Piece],
    take: Callable[[str, Any], None],
    at_once: Callable[[], int],
    start: Start | None = None,
) -> None:
    """Run every piece, in order; a task whose node or worker died is tried again three times by Ray.

    Args:
        work: the pieces.
        take: called with a piece's name and its task's reference as each ends, the one next to it not waiting. What it
            raises ends the work: nothing new is started, and what runs is waited for.
        at_once: most tasks in flight; asked each time, since nodes come and go.
        start: how a piece is started; None: as one task of one CPU.
    """
    start = start or as_task(1.0)
    pieces = iter(work)
    running: dict[Any, str] = {}
    try:
        while True:
            while len(running) < at_once() and (piece := next(pieces, None)) is not None:
                name, function, arguments = piece
                running[start(function, arguments)] = name
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            take(running.pop(done), done)
    except Exception:
        # cancelling tasks that are just ending makes Ray 2.60 abort the process
        if running:
            ray.wait(list(running), num_returns=len(running))
        raise


def collect(
    work: Sequence[Piece],
    progress: Callable[[int, int], None],
    at_once: Callable[[], int],
    expected: str,
    start: Start | None = None,
) -> tuple[dict[str, Any], list[Problem]]:
    """Run every piece, whatever happens to the others.

    Args:
        work: named by case.
        progress: called with (ended, all).
        at_once, start: as :func:`run_tasks` takes them.
        expected: what a piece gives, for the problem of one that failed.

    Returns:
        Results by case, and the problems of those that failed.
    """
    results: dict[str, Any] = {}
    problems: list[Problem] = []
    ended = count(1)

    def take(case: str, done: Any) -> None:
        try:
            results[case] = ray.get(done)
        except Exception as error:
            problems.extend(_problems_of(case, error, expected))
        progress(next(ended), len(work))

    run_tasks(work, take, at_once, start)
    return results, problems


def _problems_of(case: str, error: Exception, expected: str) -> list[Problem]:
    cause = getattr(error, "cause", None)  # of a task's error
    if isinstance(cause, ProblemsFound):
        return cause.problems
    what = str(error).strip().splitlines()[-1]
    return [Problem(case, what, expected, "mend the cause and run the command again")]


def cpus_times_two() -> int:
    """Tasks of one CPU in flight: the next one is there when one ends, and few are waited for when one fails."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))


def as_task(cpus: float, gpus: float = 0.0, returns: int = 1) -> Start:
    """Pieces as Ray tasks.

    Args:
        cpus, gpus: of each task.
        returns: references that it gives.
    """
    return lambda function, arguments: _task(function, cpus, gpus, returns).remote(*arguments)


@lru_cache
def _task(function: Callable[..., Any], cpus: float, gpus: float, returns: int) -> Any:
    """One remote function a function: Ray exports each new one to every worker."""
    return ray.remote(num_cpus=cpus, num_gpus=gpus, num_returns=returns)(function)
