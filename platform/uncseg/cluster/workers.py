"""Where networks run: on GPUs in actors that keep their GPU and loaded networks, on CPUs in plain tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from uncseg.cluster.resources import Slots
from uncseg.cluster.tasks import Call, Start, map_cases, start_as_task
from uncseg.errors import Problem


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
    calls: Sequence[Call], slots: Slots, progress: Callable[[int, int], None]
) -> tuple[dict[str, Any], list[Problem]]:
    """Run one call per case on the resources of a fold's worker; see :func:`~uncseg.cluster.tasks.map_cases`."""
    with Workers(slots, len(calls)) as workers:
        # two per worker: the next case is ready when one ends
        return map_cases(calls, progress, lambda: 2 * workers.count(), "a prediction", workers.start)
