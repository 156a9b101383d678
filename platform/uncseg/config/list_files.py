"""Reading the files that list cases: csv files of two columns, and nnU-Net's splits_final.json; problems by line."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uncseg.errors import Problem, first_problems, listed


def read_text_file(path: Path, where: str, kind: str) -> tuple[str | None, list[Problem]]:
    """Return the text of a file in UTF-8, with a byte order mark or without; or None, and what is wrong.

    Args:
        path: of the file.
        where: the field or option and the file, for the problems.
        kind: what is expected.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return None, [Problem(where, "a folder, pipe or device", kind, "correct the path")]
    try:
        return path.read_bytes().decode("utf-8-sig"), []
    except OSError as error:
        found, advice = error.strerror or str(error), "correct the path"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        where, found = f"{where}, line {line}", "text that is not UTF-8"
        advice = "save it again as UTF-8 text (in a spreadsheet: CSV UTF-8)"
    return None, [Problem(where, found, kind, advice)]


def read_csv(path: Path, column: str, where: str) -> tuple[dict[str, str], list[Problem]]:
    """Return the value of ``column`` by case, and what is wrong; separators are commas, semicolons or tabs."""
    where, expected = f"{where}: {path}", f"a csv file with the columns case and {column}"
    text, problems = read_text_file(path, where, expected)
    if text is None:
        return {}, problems
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows]
    except csv.Error as error:
        return {}, [Problem(f"{where}, line {rows.line_num}", str(error), expected, "correct the line")]
    lines = [(number, row) for number, row in lines if any(row)]
    header = [name.lower() for name in lines[0][1]] if lines else []
    counts = Counter(header)
    if missing := [name for name in ("case", column) if counts[name] != 1]:
        found = "the columns " + listed(header, 10) if header else "an empty file"
        several = [f"{counts[name]} columns {name}" for name in missing if counts[name]]
        advice = f"write case,{column} into the first line"
        return {}, [Problem(where, "; ".join([found, *several]), expected, advice)]
    places = header.index("case"), header.index(column)
    values, problems = _values(lines[1:], places, column, where, len(header))
    if not problems and not values:
        problems.append(Problem(where, "no case", "one line per case", "add the cases"))
    return values, problems


def _values(
    lines: Sequence[tuple[int, list[str]]], places: tuple[int, int], column: str, where: str, width: int
) -> tuple[dict[str, str], list[Problem]]:
    """Return the value of each case in a csv file's lines below the header."""
    seen: dict[str, tuple[str, int]] = {}
    problems = []
    for number, row in lines:
        line = f"{where}, line {number}"
        case, value = (row[place] if place < len(row) else "" for place in places)
        if any(row[width:]):
            found, advice = f"{len(row)} values", "put a value that holds a separator into quotes"
            problems.append(Problem(line, found, f"{width}, as in the first line", advice))
        elif not case or not value:
            missing = " and ".join(name for name, text in (("case", case), (column, value)) if not text)
            problems.append(
                Problem(line, f"no {missing}", f"a case and its {column}", "fill it in, or remove the line")
            )
        elif (before := seen.setdefault(case, (value, number)))[0] != value:
            found = f"{case} with {column} {value}"
            expected = f"one {column} per case; line {before[1]} says {before[0]}"
            problems.append(Problem(line, found, expected, "remove one of the lines"))
    return {case: value for case, (value, _) in seen.items()}, first_problems(problems)


def read_nnunet_splits(path: Path, where: str) -> tuple[list[dict[str, list[str]]], list[Problem]]:
    """Return the folds of nnU-Net's splits_final.json, as it says them, and what is wrong with its form."""
    expected = "nnU-Net's list of folds, [{train: [CASE, …], val: [CASE, …]}, …]"
    text, problems = read_text_file(path, where, expected)
    if text is None:
        return [], problems
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        return [], [Problem(f"{where}{line}", "text that is not JSON", expected, "restore the file")]
    if not isinstance(entries, list):
        return [], [Problem(where, "no list", expected, "give a splits_final.json")]
    for number, entry in enumerate(entries):
        problems += _problems_of_entry(f"{where}, fold {number}", entry, expected)
    return entries, first_problems(problems)


def _problems_of_entry(where: str, entry: Any, expected: str) -> list[Problem]:
    """Return what is wrong with one fold of nnU-Net's file."""
    problems: list[Problem] = []
    for part in ("train", "val"):
        cases = entry.get(part) if isinstance(entry, dict) else None
        if not isinstance(cases, list) or not all(isinstance(case, str) and case for case in cases):
            problems.append(Problem(where, f"no list of cases called {part}", expected, "correct the fold"))
        elif not cases:
            problems.append(Problem(where, f"no case in {part}", "at least one", "correct the fold"))
        elif twice := sorted(case for case, count in Counter(cases).items() if count > 1):
            found = f"{listed(twice)} several times in {part}"
            problems.append(Problem(where, found, "each case once", "remove the others"))
    return problems
