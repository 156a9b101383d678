"""What a sweep has taken, and the end of it where its budget says so."""

import time
from collections.abc import Iterable
from typing import Any

from ray.tune import Stopper

from uncseg.studies.sweep.sweep_file import Budget
from uncseg.tracking.spool import FoldHistory

MS_PER_HOUR = 3_600_000


def hours_trained(histories: Iterable[FoldHistory]) -> tuple[float, float]:
    """(hours in which at least one fold trained, hours of all folds together), by their own records."""
    spans = sorted(span for history in histories for span in history.spans.values())
    together = sum(end - begin for begin, end in spans)
    covered, until = 0, 0
    for begin, end in spans:
        covered += max(0, end - max(begin, until))
        until = max(until, end)
    return covered / MS_PER_HOUR, together / MS_PER_HOUR


class BudgetStopper(Stopper):
    """Ends all trials once the budget is spent; what trials did before this command began counts.

    Args:
        budget: hours, GPU-hours.
        hours: in which trials trained before.
        gpu_hours: that they held before.
        gpus: that a trial holds.
    """

    def __init__(self, budget: Budget, hours: float, gpu_hours: float, gpus: float) -> None:
        self.budget = budget
        self.hours, self.gpu_hours, self.gpus = hours, gpu_hours, gpus
        self._began = time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """No trial is ended alone; its time since its last result is added up."""
        if not result.get("done"):  # the end of a trial repeats its last result
            self.gpu_hours += self.gpus * result.get("time_this_iter_s", 0) / 3600
        return False

    def stop_all(self) -> bool:
        """Whether the budget is spent."""
        return self.spent() is not None

    def spent(self) -> str | None:
        """Which part of the budget is spent, for people; None where none is."""
        hours = self.hours + (time.monotonic() - self._began) / 3600
        for name, used, most in (
            ("hours", hours, self.budget.hours),
            ("gpu_hours", self.gpu_hours, self.budget.gpu_hours),
        ):
            if most is not None and used >= most:
                return f"budget.{name}: {used:.3g} of {most:g} are spent"
        return None
