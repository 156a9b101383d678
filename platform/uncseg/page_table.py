"""A table for people, built once and rendered for a terminal, a page, LaTeX and Markdown; numbers and lists as text."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment
from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

UNKNOWN = "–"
_STYLES = {"part": "bold", "strong": "bold", "quoted": "dim italic"}
_HTML = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<h3 id="{{ prefix }}{{ table.name }}">{{ table.title }}</h3>
{% if table.rows %}
<div class="wide"><table>
  <thead><tr>{% for name in table.header %}<th class="{{ css[loop.index0] }}">{{ name }}</th>{% endfor %}</tr></thead>
  <tbody>
  {% for row in table.rows %}
  <tr class="{{ row.kind }}">
    {% for cell in table.padded(row) %}
    <td class="{{ css[loop.index0] }}">{% if loop.first and row.link %}<a href="#{{ row.link }}">{{ cell }}</a>
      {%- else %}{{ cell }}{% endif %}</td>
    {% endfor %}
  </tr>
  {% endfor %}
  </tbody>
</table></div>
{% endif %}
<p class="soft">{{ table.note }}</p>
""")
_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
    | {sign: f"${sign}$" for sign in "<>*"}
    | {"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "…": r"\ldots{}", "–": "--"}
)
# characters that would begin emphasis, an element, an entity, code, the next cell or a list
_MARKDOWN = re.compile(
    r"[\\`|]|^[-+*#>](?=\s)|\*(?=\S)|(?<=\S)\*|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
)


@dataclass(frozen=True)
class Row:
    """The cells of a row; empty cells at its end may be left out."""

    cells: Sequence[str]
    kind: str = ""
    """"part" (the heading of the rows below it), "strong", "floor" (a baseline to beat), "quoted" or ""."""
    link: str = ""
    """The anchor that the first cell leads to on a page."""


@dataclass(frozen=True)
class PageTable:
    """A table for people.

    Attributes:
        name: the anchor on a page, the label in LaTeX and the name of the file.
        title: a line above the table.
        header: the names of the columns. The first one holds words and is aligned to the left; the others hold numbers.
        rows: the rows from the top.
        note: text below the table.
        words: more columns that hold words.
        terminal: the columns that fit into a terminal of 120 characters, each with its head there. If empty, a terminal
            shows all columns.
        terminal_intervals: whether intervals, "[low, high]" after a number, fit into a terminal.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Row]
    note: str = ""
    words: Collection[str] = ()
    terminal: Mapping[str, str] = field(default_factory=dict)
    terminal_intervals: bool = True

    def padded(self, row: Row) -> list[str]:
        """Return a row's cells, one per column."""
        return [*row.cells, *[""] * (len(self.header) - len(row.cells))]

    def _left(self, name: str) -> bool:
        return name == self.header[0] or name in self.words

    def to_rich(self) -> Table:
        """Render for a terminal. In a narrow one, cells are folded and never cut."""
        places = [self.header.index(name) for name in self.terminal] or range(len(self.header))
        # words fold, so lines separate their cells; numbers do without lines and have more room
        prose = set(self.header) <= set(self.words)
        shown = Table(
            box=box.HEAVY_HEAD if prose else box.SIMPLE_HEAD,
            padding=(0, 1) if prose else (0, 1, 0, 0),
            show_edge=prose,
            pad_edge=prose,
            title=Text(self.title if prose else f"\n{self.title}"),
            caption=Text(self.note),
            caption_justify="left",
        )
        for place in places:
            name = self.header[place]
            head = Text(self.terminal.get(name, name))
            shown.add_column(head, justify="left" if self._left(name) else "right", overflow="fold")
        for row in self.rows:
            if row.kind == "part" and shown.row_count:
                shown.add_section()
            cells = [cell if self.terminal_intervals else cell.split(" [")[0] for cell in self.padded(row)]
            shown.add_row(*(Text(cells[place]) for place in places), style=_STYLES.get(row.kind))
        return shown

    def to_html(self, prefix: str = "") -> Markup:
        """Render for a page, with the title as a heading; ``prefix`` is the first part of the anchor."""
        css = ["words" if self._left(name) else "" for name in self.header]
        return Markup(_HTML.render(table=self, prefix=prefix, css=css))

    def to_latex(self) -> str:
        """Render as a table environment with rules of booktabs; the caption is the title and the note."""
        columns = "".join("l" if self._left(name) else "r" for name in self.header)
        caption = f"{self.title}. {self.note}".strip().translate(_LATEX)
        lines = [r"\begin{table}", rf"\caption{{{caption}}}", rf"\label{{tab:{self.name}}}"]
        lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_line(self.header), r"\midrule"]
        lines += [_latex_line(self.padded(row)) for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def to_markdown(self, level: int = 0) -> str:
        """Render between the title and the note. The title is a heading of ``level``, or for 0 a bold line."""
        title = f"{'#' * level} {_markdown(self.title)}" if level else f"**{_markdown(self.title)}**"
        lines = [[_markdown(name) for name in self.header]]
        lines.append(["---" if self._left(name) else "---:" for name in self.header])
        for row in self.rows:
            first, *others = map(_markdown, self.padded(row))
            lines.append([f"**{first}**" if row.kind == "part" else first, *others])
        table = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([title, "", *table, "", *([_markdown(self.note), ""] if self.note else [])])


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", text)


def fixed(value: float, digits: int, signed: bool = False, unknown: str = UNKNOWN) -> str:
    """Return a number with a fixed count of digits and a typographic minus sign; ``unknown`` for NaN."""
    return unknown if math.isnan(value) else f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def listed(names: Iterable[str]) -> str:
    """Return names, of which there is one at least, as "A, B and C"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def mean_sd(mean: float, sd: float, digits: int) -> str:
    """Return a mean over folds ± the standard deviation between them; the mean alone if the latter is NaN."""
    if math.isnan(mean):
        return "none valid"
    return fixed(mean, digits) if math.isnan(sd) else f"{fixed(mean, digits)} ± {fixed(sd, digits)}"


def with_interval(
    mean: float, low: float, high: float, digits: int, signed: bool = False, end_digits: int | None = None
) -> str:
    """Return "mean [low, high]"; the mean alone if the interval is NaN.

    ``end_digits`` sets the digits of the ends if they differ from those of the mean.
    """
    low_text, high_text = (fixed(end, digits if end_digits is None else end_digits, signed) for end in (low, high))
    ends = "" if math.isnan(low) else f" [{low_text}, {high_text}]"
    return fixed(mean, digits, signed) + ends
