"""Reading YAML files and checking what they say, with every problem named at once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from uncseg.config.secret_addresses import masked, masked_value
from uncseg.config.yaml_text import UnreadableYaml, parse_yaml
from uncseg.errors import DamagedFile, Problem, ProblemsFound, did_you_mean, similar
from uncseg.files import RESTORE, read_text
from uncseg.section import TOO_LONG, Section, field_names, is_too_long

Checked = TypeVar("Checked", bound=Section)
SECTIONS = ("dataset", "split", "plan", "model", "loss", "memory", "training", "evaluation", "resources", "tracking")
"""Those of an experiment."""
PATTERN = "dataset.patients"
"""A path, or a regular expression."""
PATHS = ("dataset.path", "dataset.task", PATTERN, "dataset.exclude", "split.file", "split.groups", "storage.path")
"""Fields of an experiment."""
MOST_UNKNOWN = 20
"""Unknown fields that are named."""
MOST_BYTES = 1_000_000
"""Of a file with fields: it is read in a second. Lists of cases have files of their own."""
OURS, MOST_BYTES_OF_OURS = ("experiment.yaml", "best.yaml"), 10_000_000
"""Of the files that a run and a sweep write, which hold such lists; those of 100,000 cases are shorter."""
LONGEST_SHOWN = 100
"""Letters of a value in a problem."""


class Override(NamedTuple):
    """A field that is set from outside of the file that is read: FIELD=VALUE, and where that was written."""

    assignment: str
    written: str = ""
    """The place to name in problems; empty: the option --set."""

    @property
    def field(self) -> str:
        """Name of the field."""
        return self.assignment.partition("=")[0]

    @property
    def where(self) -> str:
        """The place to name in problems."""
        name, equals, value = self.assignment.partition("=")
        return self.written or f"--set {shortened(name + equals + masked_value(value))}".strip()


def read_yaml(path: Path, title: str, example: str) -> dict[str, Any]:
    """Read the fields of a YAML file; the error has this title, and names the example if the file holds no fields.

    Raises:
        ProblemsFound: the file cannot be read, is too large, or holds no fields.
    """
    content, problem = None, _unreadable(path)
    if problem is None:
        try:
            content = parse_yaml(path.read_text(encoding="utf-8-sig"))
            problem = Problem(str(path), "no fields", "name, …", f"start from {example}")
        except OSError as error:
            problem = Problem(str(path), error.strerror or str(error), "a readable YAML file", "correct the path")
        except UnicodeDecodeError:
            problem = Problem(str(path), "text that is not UTF-8", "YAML in UTF-8", "save it again as UTF-8 text")
        except UnreadableYaml as error:
            where = str(path) if error.line is None else f"{path}, line {error.line}"
            problem = Problem(where, error.found, error.expected, error.advice)
    if isinstance(content, dict):
        return content
    raise ProblemsFound(title, [problem] if problem else [])


def read_saved(file: Path, advice: str = RESTORE) -> dict[str, Any]:
    """Read the fields of a YAML file that uncseg wrote, such as a run's experiment.yaml.

    Raises:
        DamagedFile: it is absent, damaged, or of another shape; ``advice`` says what makes it again.
    """
    text = read_text(file, advice)
    try:
        content = parse_yaml(text)
    except UnreadableYaml as error:
        raise DamagedFile.of(file, error.found, "the fields that were written", advice) from error
    if isinstance(content, dict) and all(isinstance(content.get(name, {}), dict) for name in SECTIONS):
        return content
    raise DamagedFile.of(file, " ".join(text.split())[:60], "the fields that were written", advice)


def _unreadable(path: Path) -> Problem | None:
    """Return why a path cannot be a file with fields; None where it can, or where there is nothing."""
    if path.is_dir():
        known = next((file for name in OURS if (file := path / name).is_file()), None)
        return Problem(str(path), "a folder", "a YAML file", f"give {known}" if known else "give a file in it")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return Problem(str(path), "a pipe or device", "a YAML file", "correct the path")
    most = MOST_BYTES_OF_OURS if path.name in OURS else MOST_BYTES
    if path.is_file() and (size := path.stat().st_size) > most:
        advice = "correct the path, or name files with lists of cases"
        return Problem(str(path), f"{size} bytes", f"at most {most}, as fields have", advice)
    return None


def require_kind(content: Mapping[str, Any], path: Path, kind: str, title: str) -> None:
    """Refuse a file with the fields of another kind.

    Args:
        content: its fields.
        path: of the file.
        kind: experiment, sweep or benchmark.
        title: of the error.

    Raises:
        ProblemsFound: saying which command takes the file.
    """
    if "dataset" in content and "base" not in content:
        found = "experiment"
    else:
        found = next((of for field, of in (("trainings", "benchmark"), ("space", "sweep")) if field in content), kind)
    if found != kind:
        names = [f"{'an' if name == 'experiment' else 'a'} {name}" for name in (found, kind)]
        advice = f"uncseg {'cross-validate' if found == 'experiment' else found} {path}"
        raise ProblemsFound(title, [Problem(str(path), f"the file of {names[0]}", f"that of {names[1]}", advice)])


def validate(
    section: type[Checked],
    content: dict[str, Any],
    path: Path,
    title: str,
    problems: Sequence[Problem] = (),
    overrides: Sequence[Override] = (),
) -> Checked:
    """Check the fields of a file against a class.

    Args:
        section: the class.
        content: the fields, with what ``overrides`` set.
        path: of the file.
        title: of the error.
        problems: those found before.
        overrides: a problem with a field that one of them set names it in place of the file.

    Raises:
        ProblemsFound: with every problem, ``problems`` first.
    """
    found = list(problems)
    try:
        checked = section.model_validate(content)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=True)
        unknown = [item for item in items if item["type"] == "extra_forbidden"]
        items = [item for item in items if item["type"] != "extra_forbidden"] + unknown[:MOST_UNKNOWN]
        found += [p for item in items for p in _problems(section, path, item, overrides)]
        if more := len(unknown[MOST_UNKNOWN:]):
            found.append(
                Problem(str(path), f"{more} more unknown fields", "fields of the file", "correct or remove them")
            )
    if found:
        raise ProblemsFound(title, list(dict.fromkeys(map(_without_secrets, found))))
    return checked


def problems_of_long_paths(content: Mapping[str, Any], path: Path, overrides: Sequence[Override]) -> list[Problem]:
    """Return which of an experiment's paths no file can have."""
    problems = []
    for field in PATHS:
        section, _, name = field.partition(".")
        value = part.get(name) if isinstance(part := content.get(section), Mapping) else None
        if isinstance(value, str) and is_too_long(value) and (field != PATTERN or value.lower().endswith(".csv")):
            where = _where(path, field, overrides, {"type": "path", "input": value})
            problems.append(Problem(where, shortened(value), TOO_LONG, "correct the path"))
    return problems


def split_advice(line: str) -> tuple[str, str]:
    """Split "what is wrong; what to do" into its halves."""
    what, _, advice = line.rpartition("; ")
    return (what, advice) if what else (line, "correct it")


def shortened(text: str) -> str:
    """Return a text that fits into a table: its beginning where it is long."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _problems(
    section: type[Section], path: Path, item: Mapping[str, Any], overrides: Sequence[Override]
) -> list[Problem]:
    field, message = ".".join(map(str, item["loc"])), str(item["msg"])
    if not field or (message.startswith("Value error, ") and "; " in message):  # one line per problem
        within = f"{field}." if field else ""
        lines = map(split_advice, message.removeprefix("Value error, ").splitlines())
        expected = "settings that fit together"
        return [
            Problem(_where(path, within + (w.split() or [""])[0], overrides, item), w, expected, a) for w, a in lines
        ]
    where = _where(path, field, overrides, item)
    if item["type"] == "extra_forbidden":
        named = next((one.field for one in overrides if _is_below(one.field, field)), field)
        return [Problem(where, "an unknown field", "a field of the file", _similar_field(named, section))]
    if item["type"] == "missing":
        return [Problem(where, "nothing", "a value", "write this field")]
    expected = message[0].lower() + message[1:]
    return [Problem(where, _shown(item["input"]), expected, _advice(item))]


def _without_secrets(problem: Problem) -> Problem:
    """Return a problem without what an address among its texts holds; other texts stay as they are."""

    def hidden(text: str) -> str:
        return masked(text.replace("\n", "\\n")) if "tracking" in text or ":/" in text or "@" in text else text

    found = problem.found
    if "tracking" in problem.where or "ray_address" in problem.where:
        found = masked_value(found)
        # of a text that is cut, nobody knows what the cut part makes of the rest
        found = "***" if "***" not in found and ("@" in found or (":" in found and "…" in found)) else found
    return replace(problem, where=hidden(problem.where), found=hidden(found))


def _where(path: Path, field: str, overrides: Sequence[Override], item: Mapping[str, Any]) -> str:
    """Return the place of a field: what set it last, or the file."""
    section, _, last = field.rpartition(".")
    for one in reversed(overrides):
        if one.field == field or (item["type"] == "extra_forbidden" and _is_below(one.field, field)):
            return one.where
        a_weight = last.isdigit() and one.field.startswith(f"{section}.") and str(item["input"]) in one.assignment
        if _is_below(field, one.field) or _is_below(one.field, field) or a_weight:
            return f"{one.where}: {field}"
    return f"{path}: {field}"


def _is_below(field: str, section: str) -> bool:
    return field == section or field.startswith(f"{section}.")


def _advice(item: Mapping[str, Any]) -> str:
    value = item["input"]
    if item["type"] == "string_type" and not isinstance(value, dict | list) and value is not None:
        return "put it into quotes"
    if item["type"] in ("literal_error", "enum") and isinstance(value, str):
        return did_you_mean(value, re.findall(r"'([^']*)'", str(item["ctx"]["expected"])), "write one of them")
    return "write a value that fits"


def _shown(value: Any) -> str:
    try:
        return shortened(repr(value))
    except ValueError:  # more digits than Python prints
        return "a number of thousands of digits"


def _similar_field(field: str, section: type[Section]) -> str:
    """Return advice that names the field that may be meant: one of its section, of this name elsewhere, or alike."""
    known = field_names(section)
    parent, _, last = field.rpartition(".")
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}  # of two, the first one in the file
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    if beside_name := similar(last, beside):
        name: str | None = beside[beside_name]
    elif last in by_last or beside:
        name = by_last.get(last)
    else:
        name = similar(field, known) or by_last.get(similar(last, by_last) or "")
    return f"did you mean {name}?" if name else "correct or remove it"
