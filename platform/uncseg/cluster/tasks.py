"""Functions run as Ray tasks, with a bounded number in flight so that memory stays bounded."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import ray

from uncseg.errors import Problem, ProblemsFound

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""Name, function and arguments of one call."""
Start = Callable[[Callable[..., Any], tuple[Any, ...]], Any]
"""Starts a function with its arguments and returns the Ray reference of its result."""


def run_tasks(
    calls: Iterable[Call], on_end: Callable[[str, Any], None], in_flight: Callable[[], int], start: Start | None = None
) -> None:
    """Run every call, started in order. Ray retries a task three times if its node or worker dies.

    Args:
        on_end: called with a call's name and the reference of its result as each ends. If it raises, no further call
            is started, and the running ones are waited for.
        in_flight: returns the largest number of tasks in flight; asked before each start, because nodes come and go.
        start: starts a call; None: as one task of one CPU.
    """
    start = start or start_as_task(1.0)
    waiting = iter(calls)
    running: dict[Any, str] = {}
    try:
        while True:
            while len(running) < in_flight() and (call := next(waiting, None)) is not None:
                name, function, arguments = call
                running[start(function, arguments)] = name
            if not running:
                return
            (ended,), _ = ray.wait(list(running), num_returns=1)
            on_end(running.pop(ended), ended)
    except Exception:
        # cancelling tasks that are just ending makes Ray 2.60 abort the process
        if running:
            ray.wait(list(running), num_returns=len(running))
        raise


def map_cases(
    calls: Sequence[Call],
    progress: Callable[[int, int], None],
    in_flight: Callable[[], int],
    expected: str,
    start: Start | None = None,
) -> tuple[dict[str, Any], list[Problem]]:
    """Run one call per case; a case that fails does not stop the others.

    Args:
        calls: the calls, each named after its case.
        progress: called with (ended, total).
        in_flight, start: see :func:`run_tasks`.
        expected: what a call returns, as the problem of a failed case puts it.

    Returns:
        The results by case, and the problems of the cases that failed.
    """
    results: dict[str, Any] = {}
    problems: list[Problem] = []
    ended = count(1)

    def on_end(case: str, reference: Any) -> None:
        try:
            results[case] = ray.get(reference)
        except Exception as error:
            cause = getattr(error, "cause", None)  # set on the errors that tasks raise
            last_line, advice = str(error).strip().splitlines()[-1], "fix the cause and run the command again"
            problem = Problem(case, last_line, expected, advice)
            problems.extend(cause.problems if isinstance(cause, ProblemsFound) else [problem])
        progress(next(ended), len(calls))

    run_tasks(calls, on_end, in_flight, start)
    return results, problems


def two_per_cpu() -> int:
    """Return twice the CPUs: one task runs per CPU and one waits; more would make a failing command wait longer."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))


def start_as_task(cpus: float, returns: int = 1) -> Start:
    """Return a function that starts calls as Ray tasks, each of which returns as many references as ``returns``."""
    return lambda function, arguments: _remote(function, cpus, returns).remote(*arguments)


@lru_cache
def _remote(function: Callable[..., Any], cpus: float, returns: int) -> Any:
    """Return one remote function per function, because Ray exports each new one to every worker."""
    return ray.remote(num_cpus=cpus, num_returns=returns)(function)
