"""The progress of a run's folds: a live table in a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.live import Live
from rich.table import Table

from uncseg.console import console
from uncseg.evaluation.figures import shown_in
from uncseg.layout import RunFolder
from uncseg.page_table import PageTable, Row, fixed
from uncseg.tracking.spool import FoldHistory


class FoldProgress:
    """Shows the folds of a run, read from its spool, one line per fold.

    Args:
        epochs: epochs of a whole training.
        prefix: of each printed line, if several runs are shown.
    """

    _live: Live | None = None

    def __init__(self, run: RunFolder, folds: Sequence[int], epochs: int, prefix: str = "") -> None:
        self.run, self.prefix, self.epochs = run, prefix, epochs
        self.histories = {fold: FoldHistory(fold) for fold in folds}
        self._printed: dict[int, tuple[str, int]] = {}
        self._last_line = 0.0

    def __call__(self) -> None:
        """Read what is new and show it."""
        for history in self.histories.values():
            history.refresh(self.run.spool)
        if self._live is not None:
            self._live.update(self.table())
        else:
            self._print_changes()

    @contextmanager
    def shown(self) -> Iterator["FoldProgress"]:
        """Show the live table while the block runs, if there is a terminal."""
        live = Live(self.table(), console=console, refresh_per_second=2) if console.is_terminal else nullcontext()
        try:
            with live as self._live:
                yield self
        finally:
            self._live = None

    def table(self) -> Table:
        """Return the table: state, epoch, loss, patch Dice, correlation and time left of every fold."""
        header = ["fold", "state", "epoch", *(figure.label for figure in shown_in("progress").values()), "time left"]
        rows = [Row([str(fold), history.state, *self._cells(history)]) for fold, history in self.histories.items()]
        return PageTable("folds", f"{self.run.root.name}: training", header, rows, words=["state"]).to_rich()

    def _cells(self, history: FoldHistory) -> list[str]:
        done = history.last_epoch + 1
        metrics = history.epochs[history.last_epoch].metrics if done else {}
        recent = [record.metrics["system/epoch_seconds"] for record in list(history.epochs.values())[-5:]]
        left = (self.epochs - done) * sum(recent) / len(recent) if recent and history.state == "running" else None
        return [
            f"{done}/{self.epochs}",
            *(fixed(metrics.get(name, math.nan), 3, unknown="") for name in shown_in("progress")),
            "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d}",
        ]

    def _print_changes(self) -> None:
        # at most one line per second and fold keeps a log of 500 epochs readable
        if time.monotonic() - self._last_line < 1:
            return
        for fold, history in self.histories.items():
            if (now := (history.state, history.last_epoch)) == self._printed.get(fold, ("waiting", -1)):
                continue
            self._printed[fold], self._last_line = now, time.monotonic()
            epoch, *values, left = self._cells(history)
            shown = zip(shown_in("progress").values(), values, strict=True)
            figures = [f"{figure.label} {value}" for figure, value in shown]
            parts = [history.state, f"epoch {epoch}", *figures, *([f"{left} left"] if left else [])]
            console.print(f"{self.prefix}fold {fold}: {', '.join(parts)}")
