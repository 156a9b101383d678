"""Functions run as Ray tasks, with a bounded number in flight so that memory stays bounded, and where networks run.

On GPUs these run in actors that keep their GPU and loaded networks, on CPUs in plain tasks.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import ray

from uncseg.cluster.resources import Slots
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


class _GpuWorker:
    """An actor, because Ray ends the process of a GPU task after every task, and its networks with it."""

    def ready(self) -> None:
        """Return once the actor has its GPU."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, None]:
        """Return the function's result, and a second value that costs nothing to keep and tells when it ended."""
        return function(*arguments), None


class Workers:
    """As many workers as fit in the slots, while a block runs, but no more than there are calls to come.

    An actor that dies is restarted and its work repeated.
    """

    def __init__(self, slots: Slots, calls: int) -> None:
        worker = slots.fold.worker
        self._start_task: Start = start_as_task(worker.cpus)
        self._limit = max(1, min(slots.cases, calls))
        self._uses_gpus = bool(worker.gpus)
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, list[Any]] = {}
        if self._uses_gpus:
            # they reserve no CPUs: they stay alive, and the tasks that read and write for them need CPUs too
            actor = ray.remote(num_cpus=0, num_gpus=worker.gpus, max_restarts=-1, max_task_retries=3)(_GpuWorker)
            actors = [actor.remote() for _ in range(self._limit)]
            self._starting = {actor.ready.remote(): actor for actor in actors}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_error: object) -> None:
        for actor in (*self._starting.values(), *self._running):
            ray.kill(actor)

    def count(self) -> int:
        """Return the number of workers that are ready, at least one: the first is waited for."""
        if not self._uses_gpus:
            return self._limit
        if self._starting and ray.wait(list(self._starting), timeout=0 if self._running else None)[0]:
            ready, _ = ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0)
            self._running |= {self._starting.pop(answer): [] for answer in ready}
        return len(self._running)

    def start(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a function on the least busy worker and return the reference of its result."""
        if not self._uses_gpus:
            return self._start_task(function, arguments)
        self.count()
        for actor, calls in self._running.items():
            self._running[actor] = ray.wait(calls, num_returns=len(calls), timeout=0)[1] if calls else []
        actor = min(self._running, key=lambda candidate: len(self._running[candidate]))
        result, ended = actor.run.options(num_returns=2).remote(function, *arguments)
        self._running[actor].append(ended)
        return result


def map_cases_on_workers(
    calls: Sequence[Call], slots: Slots, progress: Callable[[int, int], None], expected: str = "a prediction"
) -> tuple[dict[str, Any], list[Problem]]:
    """Run one call per case on the resources of a fold's worker; see :func:`map_cases`."""
    with Workers(slots, len(calls)) as workers:
        # two per worker: the next case is ready when one ends
        return map_cases(calls, progress, lambda: 2 * workers.count(), expected, workers.start)
