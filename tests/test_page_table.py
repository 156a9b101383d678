"""One table in four formats: what a parser of each reads back is the same, whatever signs the cells hold."""

import io
import math
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from uncseg.page_table import PageTable, Row, fixed, mean_sd, with_interval

HEADER = ["", "a|b", "p_value %", "x < y & z", "note"]
ROWS = [
    Row(["union & reference"], "part"),
    Row(["mc_dropout *", "0.912 [0.890, 0.931]", "−0.700 ± 0.141", "<b>&lt;</b>", r"a|b \ {50 %} #1 $x^2$ ~"], "floor"),
    Row(["_both_", "1", "–", "p < 0.001", "*bold* `code`"], "strong", link="case-1"),
]
TABLE = PageTable("all_signs", "100 % of_all | <signs>", HEADER, ROWS, "* floor: a & b < c_d.", words=["note"])
EXPECTED = [HEADER, ["union & reference", "", "", "", ""], *(list(row.cells) for row in ROWS[1:])]


class Cells(HTMLParser):
    """Rows of cells, and all text outside them."""

    def __init__(self):
        super().__init__()
        self.rows, self.outside, self.links, self.inside = [], "", [], False

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True
        elif tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data
        else:
            self.outside += data


def read_html(text):
    parser = Cells()
    parser.feed(str(text))
    return parser


def read_latex(text):
    """Cells of a tabular; only what LaTeX itself reads as an ampersand or the end of a row parts them."""
    body = re.search(r"\\toprule\n(.*)\\bottomrule", text, re.DOTALL)[1].replace("\\midrule\n", "")
    rows = [line.removesuffix(r" \\") for line in body.splitlines()]
    return [[plain(cell.strip()) for cell in re.split(r"(?<!\\)&", row)] for row in rows]


def plain(latex):
    commands = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textbar{}": "|"}
    commands |= {r"$\pm$": "±", "$-$": "−", "$<$": "<", "$>$": ">", "$*$": "*", "--": "–"}
    commands |= {f"\\{sign}": sign for sign in "&%$#_{}"}
    parts = "|".join(map(re.escape, commands))
    assert not set("\\&%$#_{}~^<>|*") & set(re.sub(parts, "", latex)), "a sign that LaTeX takes for a command"
    return re.sub(parts, lambda found: commands[found[0]], latex)


def read_terminal(table, width=120):
    screen = Console(file=io.StringIO(), width=width)
    screen.print(table.to_rich())
    return [line for line in screen.file.getvalue().splitlines() if line.strip()]


def test_all_formats_hold_the_same_cells():
    assert read_html(TABLE.to_html()).rows == EXPECTED
    assert read_html(MarkdownIt("commonmark").enable("table").render(TABLE.to_markdown())).rows == EXPECTED
    assert read_latex(TABLE.to_latex()) == EXPECTED
    title, header, _, *body = read_terminal(TABLE)
    assert title.strip() == TABLE.title
    lines = [re.split(r" {2,}", line.strip()) for line in (header, *body[:3])]
    assert lines == [HEADER[1:], *(list(row.cells) for row in ROWS)]


def test_titles_and_notes_are_escaped_too():
    page = read_html(TABLE.to_html("run1-"))
    assert page.outside.split() == [*TABLE.title.split(), *TABLE.note.split()]
    assert page.links == ["#case-1"]
    assert '<h3 id="run1-all_signs">' in TABLE.to_html("run1-")
    markdown = MarkdownIt("commonmark").enable("table").render(TABLE.to_markdown(2))
    assert "<h2>100 % of_all | &lt;signs&gt;</h2>" in markdown
    assert "<p>* floor: a &amp; b &lt; c_d.</p>" in markdown
    caption = re.search(r"\\caption\{(.*)\}\n", TABLE.to_latex())[1]
    assert plain(caption) == f"{TABLE.title}. {TABLE.note}"
    assert r"\label{tab:all_signs}" in TABLE.to_latex()


def test_a_heading_is_bold_in_markdown_and_words_stand_on_the_left():
    text = TABLE.to_markdown()
    assert "| **union & reference** |" in text
    assert "| --- | ---: | ---: | ---: | --- |" in text
    assert r"\begin{tabular}{lrrrl}" in TABLE.to_latex()
    assert TABLE.to_html().count('class="words"') == 2 * len(EXPECTED)


def test_a_terminal_shows_its_own_columns_and_heads():
    rows = [Row(["head", "0.91 [0.90, 0.92]", "0.2"])]
    table = PageTable("t", "", ["name", "Dice of WT", "cost"], rows, terminal={"name": "", "Dice of WT": "Dice\nWT"})
    text = "\n".join(read_terminal(table))
    assert "0.91 [0.90, 0.92]" in text
    assert "Dice of WT" not in text
    assert "cost" not in text
    assert "0.2" not in text
    narrow = PageTable("t", "", ["name", "Dice of WT"], rows, terminal_intervals=False)
    assert "0.91" in read_terminal(narrow)[-1]
    assert "[" not in read_terminal(narrow)[-1]


def test_nothing_is_cut_in_a_narrow_terminal():
    cell = "0123456789" * 5
    text = "".join(read_terminal(PageTable("t", "", ["name"], [Row([cell])]), width=20))
    assert cell in text.replace(" ", "")


def test_columns_of_one_name_keep_their_own_cells():
    rows = [Row(["a", "1", "2"])]
    table = PageTable("t", "", ["", "epochs", "epochs"], rows)
    assert read_terminal(table)[-1].split() == ["a", "1", "2"]
    assert read_html(table.to_html()).rows[1] == ["a", "1", "2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fixed(-0.5, 3), "−0.500"),
        (fixed(0.5, 1, signed=True), "+0.5"),
        (fixed(math.nan, 1), "–"),
        (fixed(math.nan, 1, unknown=""), ""),
        (mean_sd(0.5, 0.25, 2), "0.50 ± 0.25"),
        (mean_sd(-0.5, math.nan, 2), "−0.50"),
        (mean_sd(math.nan, math.nan, 2), "none valid"),
        (with_interval(0.5, -0.25, 0.75, 2), "0.50 [−0.25, 0.75]"),
        (with_interval(0.5, 0.25, 0.75, 3, signed=True, end_digits=2), "+0.500 [+0.25, +0.75]"),
        (with_interval(0.5, math.nan, math.nan, 1), "0.5"),
        (with_interval(math.nan, math.nan, math.nan, 1), "–"),
    ],
)
def test_cells_of_numbers(text, expected):
    assert text == expected
