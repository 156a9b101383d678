"""What a command prints: results and progress on standard output, problems and warnings on standard error.

Progress is a live line, or plain lines where there is no terminal.
"""

import logging
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from uncseg.errors import Problem, ProblemsFound
from uncseg.page_table import PageTable, Row

# a pipe has no width; tables made for a page are easier to read than ones cut at 80 columns
# names of cases and files are printed as they are: [bold]2 and :art: are no instructions
console = Console(width=None if Console().is_terminal else 120, highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Plain:
    """What is printed, without characters that a terminal obeys: names come from strangers."""

    def __init__(self, shown: ConsoleRenderable) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self.shown, options):
            yield Segment(text if control else _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), style, control)


class _PlainHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(shown) for shown in renderables]


for _one in (console, errors):
    _one.push_render_hook(_PlainHook())


class _Printed(logging.Handler):
    """Prints what this package logs; without a handler Python would, names and all."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(self.format(record))


logging.getLogger("uncseg").addHandler(_Printed(logging.WARNING))


def show_problems(error: ProblemsFound) -> None:
    """Print every problem of an error as one table, on standard error."""
    count = len(error.problems)
    _show(error.problems, f"{error.title} ({count} problem{'s' * (count != 1)})")


def show_warnings(warnings: Sequence[Problem]) -> None:
    """Print what is odd, and stops nothing, as one table, on standard error; nothing without a warning."""
    if warnings:
        _show(warnings, f"Warnings ({len(warnings)})")


def warn(line: str) -> None:
    """Print one line on what is odd, or could not be done, on standard error."""
    errors.print(line, soft_wrap=True)


def _show(problems: Sequence[Problem], title: str) -> None:
    header = ("where", "found", "expected", "what to do")
    rows = [Row((problem.where, problem.found, problem.expected, problem.advice)) for problem in problems]
    table = PageTable("problems", title, header, rows, words=header).to_rich()
    table.expand = True
    if not errors.is_terminal:
        errors.width = console.width
    errors.print(table)


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of countable work: a live line, or without a terminal a line after each tenth of it.

    Yields:
        A function to call with the name of the work, the count that is done and the total.
    """
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


def command_line(*words: object) -> str:
    """Return a command as a shell takes it, with paths and names quoted where they need it."""
    return shlex.join(map(str, words))
