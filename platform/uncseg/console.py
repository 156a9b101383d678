"""What a person sees: problems as one table, progress as a live table, plain lines where there is no terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from uncseg.errors import ProblemsFound
from uncseg.layout import RunFolder
from uncseg.tracking.spool import FoldHistory

# a pipe has no width; tables made for a page are easier to read than ones cut at 80 columns
console = Console(width=None if Console().is_terminal else 120, highlight=False)


def show_problems(error: ProblemsFound) -> None:
    """Print every problem of an error as one table."""
    table = Table(
        title=f"{escape(error.title)} ({len(error.problems)} problem{'s' * (len(error.problems) != 1)})", expand=True
    )
    for column in ("where", "found", "expected", "what to do"):
        table.add_column(column, overflow="fold")
    for problem in error.problems:
        cells = (problem.where, problem.found, problem.expected, problem.advice)
        table.add_row(*map(escape, cells))  # a list in brackets is no markup
    console.print(table)


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of countable work: call with (what, done, all). A line when it changes by a tenth, or a live line."""
    shown: dict[str, int] = {}
    with console.status("") as status:

        def show(what: str, done: int, total: int) -> None:
            if not total:
                return
            if console.is_terminal:
                status.update(f"{what}: {done} of {total}")
            tenth = 10 * done // max(total, 1)
            if shown.get(what) != tenth and (not console.is_terminal or done == total):
                shown[what] = tenth
                console.print(f"{what}: {done} of {total}")

        yield show


class FoldProgress:
    """The folds of a run, read from its spool: one line a fold.

    Args:
        run: the run's folder.
        folds: folds to show.
        epochs: epochs of a whole training.
        prefix: of each line, where several runs are shown.
    """

    def __init__(self, run: RunFolder, folds: Sequence[int], epochs: int, prefix: str = "") -> None:
        self.run = run
        self.prefix = prefix
        self.epochs = epochs
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
        """Show the live table while the block runs (where there is a terminal)."""
        if not console.is_terminal:
            yield self
            return
        with Live(self.table(), console=console, refresh_per_second=2) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    _live: Live | None = None

    def table(self) -> Table:
        """State, epoch, loss, patch Dice, correlation and time left of every fold."""
        table = Table(title=f"{self.run.root.name}: training")
        for column in ("fold", "state", "epoch", "loss", "patch Dice", "correlation", "time left"):
            table.add_column(column, justify="left" if column == "state" else "right")
        for fold, history in self.histories.items():
            table.add_row(str(fold), history.state, *self._figures(history))
        return table

    def _figures(self, history: FoldHistory) -> tuple[str, str, str, str, str]:
        done = history.last_epoch + 1
        metrics = history.epochs[history.last_epoch].metrics if done else {}
        recent = [record.metrics["system/epoch_seconds"] for record in list(history.epochs.values())[-5:]]
        left = (self.epochs - done) * sum(recent) / len(recent) if recent and history.state == "running" else None
        return (
            f"{done}/{self.epochs}",
            _number(metrics.get("train/loss")),
            _number(metrics.get("val_patch/dice_mean")),
            _number(metrics.get("uncertainty/reference/corr_ema/uncertainty")),
            "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d}",
        )

    def _print_changes(self) -> None:
        # at most one line a second and fold keeps a log of 500 epochs readable
        if time.monotonic() - self._last_line < 1:
            return
        for fold, history in self.histories.items():
            now = (history.state, history.last_epoch)
            if now == self._printed.get(fold, ("waiting", -1)):
                continue
            self._printed[fold] = now
            self._last_line = time.monotonic()
            epoch, loss, dice, corr, left = self._figures(history)
            tail = f", {left} left" if left else ""
            figures = f"epoch {epoch}, loss {loss}, Dice {dice}, corr {corr}{tail}"
            console.print(f"{self.prefix}fold {fold}: {history.state}, {figures}")


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
