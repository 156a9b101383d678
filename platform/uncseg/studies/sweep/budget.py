"""The budget of a sweep: what its trials have used, and the end of all trials once it is spent."""

import time
from collections.abc import Iterable
from typing import Any

from ray.tune import Stopper

from uncseg.studies.sweep.sweep_file import Budget
from uncseg.tracking.spool import FoldHistory

MS_PER_HOUR = 3_600_000


def hours_trained(histories: Iterable[FoldHistory]) -> tuple[float, float]:
    """Return (hours in which at least one fold trained, sum of the hours of each fold), as their spools say."""
    spans = sorted(span for history in histories for span in history.spans.values())
    covered, until = 0, 0
    for begin, end in spans:
        covered += max(0, end - max(begin, until))
        until = max(until, end)
    return covered / MS_PER_HOUR, sum(end - begin for begin, end in spans) / MS_PER_HOUR


class BudgetStopper(Stopper):
    """Ends all trials, each of ``gpus`` GPUs, once the budget is spent; what earlier commands used counts."""

    def __init__(self, budget: Budget, hours: float, gpu_hours: float, gpus: float) -> None:
        self.budget = budget
        self.hours, self.gpu_hours, self.gpus = hours, gpu_hours, gpus
        self._began = time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Add a trial's time since its last result; no trial is ended alone."""
        if not result.get("done"):  # the end of a trial repeats its last result
            self.gpu_hours += self.gpus * result.get("time_this_iter_s", 0) / 3600
        return False

    def stop_all(self) -> bool:
        """Return whether the budget is spent."""
        return self.spent() is not None

    def spent(self) -> str | None:
        """Return a text that says which limit is reached; None where none is."""
        hours = self.hours + (time.monotonic() - self._began) / 3600
        for name, used in (("hours", hours), ("gpu_hours", self.gpu_hours)):
            most = getattr(self.budget, name)
            if most is not None and used >= most:
                return f"budget.{name}: {used:.3g} of {most:g} have been used"
        return None
