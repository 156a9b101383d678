"""Where networks run: on GPUs in processes that keep their GPU and what they have loaded, on CPUs in plain tasks."""

from collections.abc import Callable
from typing import Any

import ray

from uncseg.cluster.resources import Slots
from uncseg.cluster.tasks import Start, as_task


class _GpuWorker:
    """A process that stays: Ray ends one that ran a task with a GPU, and its networks with it, after every task."""

    def ready(self) -> None:
        """Answers once there is a GPU for it."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, None]:
        """The function's result, and a second one that costs nothing to keep."""
        return function(*arguments), None


class Workers:
    """As many as fit, for the time of a block; a keeper whose process dies is started again, and its work repeated.

    Args:
        slots: what each takes, and how many there may be.
        pieces: of work; more workers than that are not started.
    """

    def __init__(self, slots: Slots, pieces: int) -> None:
        worker = slots.each.of_worker
        self._tasks: Start = as_task(worker.cpus)
        self._count = max(1, min(slots.cases, pieces))
        self._coming: dict[Any, Any] = {}
        self._here: dict[Any, list[Any]] = {}
        if worker.gpus:
            # without CPUs of their own: they stay, and what is read and written beside them must find some
            keeper = ray.remote(num_cpus=0, num_gpus=worker.gpus, max_restarts=-1, max_task_retries=3)(_GpuWorker)
            keepers = [keeper.remote() for _ in range(self._count)]
            self._coming = {keeper.ready.remote(): keeper for keeper in keepers}
        self._gpus = bool(worker.gpus)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_error: object) -> None:
        for keeper in (*self._coming.values(), *self._here):
            ray.kill(keeper)

    def count(self) -> int:
        """Workers that are there, at least one: the first is waited for."""
        if not self._gpus:
            return self._count
        wait_s = 0 if self._here else None
        if self._coming:
            ready, _ = ray.wait(list(self._coming), num_returns=1, timeout=wait_s)
            if ready:
                more, _ = ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0)
                self._here |= {self._coming.pop(answer): [] for answer in more}
        return len(self._here)

    def start(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a function on the worker that has least to do; the reference of its result."""
        if not self._gpus:
            return self._tasks(function, arguments)
        self.count()
        for keeper, running in self._here.items():
            self._here[keeper] = ray.wait(running, num_returns=len(running), timeout=0)[1] if running else []
        keeper = min(self._here, key=lambda one: len(self._here[one]))
        result, ended = keeper.run.options(num_returns=2).remote(function, *arguments)
        self._here[keeper].append(ended)
        return result
