"""Reading YAML files and checking what they say, with every problem named at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from uncseg.errors import Problem, ProblemsFound
from uncseg.section import Section

Checked = TypeVar("Checked", bound=Section)


class FieldTwiceError(yaml.YAMLError):
    """A field that a mapping has twice, of which YAML's reader would keep the last."""

    def __init__(self, field: str, line: int) -> None:
        super().__init__(f"{field} twice")
        self.field, self.line = field, line


class FieldsLoader(yaml.SafeLoader):
    """YAML's reader, which refuses a field that is there twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping as it is written."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise FieldTwiceError(key.value, key.start_mark.line + 1)
                seen.add((key.tag, key.value))
        return node


def read_yaml(path: Path, title: str, example: str) -> dict[str, Any]:
    """Read the fields of a YAML file; the error has this title, and names the example if the file holds no fields.

    Raises:
        ProblemsFound: the file cannot be read, or holds no fields.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), FieldsLoader)
    except OSError as error:
        problem = Problem(str(path), error.strerror or str(error), "a readable YAML file", "correct the path")
    except UnicodeDecodeError:
        problem = Problem(str(path), "text that is not UTF-8", "YAML in UTF-8", "save it again as UTF-8 text")
    except (ValueError, RecursionError) as error:  # 2026-13-01 is no date
        problem = Problem(str(path), str(error), "SECTION: and FIELD: VALUE lines", "correct the value")
    except FieldTwiceError as error:
        where = f"{path}, line {error.line}"
        problem = Problem(where, f"{error.field} a second time", "each field once", "remove one of the two")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = str(path) if mark is None else f"{path}, line {mark.line + 1}"
        problem = Problem(where, "text that is not YAML", "SECTION: and FIELD: VALUE lines", "correct the syntax")
    else:
        if isinstance(content, dict):
            return content
        problem = Problem(str(path), "no fields", "name, …", f"start from {example}")
    raise ProblemsFound(title, [problem])


def validate(
    section: type[Checked], content: dict[str, Any], path: Path, title: str, problems: Sequence[Problem] = ()
) -> Checked:
    """Check the fields of a file against a class; ``problems`` are those found before.

    Raises:
        ProblemsFound: with every problem, ``problems`` first.
    """
    found = list(problems)
    try:
        checked = section.model_validate(content)
    except ValidationError as error:
        found += [p for item in error.errors() for p in _problems(path, item["loc"], item["msg"], item["input"])]
    if found:
        raise ProblemsFound(title, found)
    return checked


def split_advice(line: str) -> tuple[str, str]:
    """Split "what is wrong; what to do" into its halves."""
    what, _, advice = line.rpartition("; ")
    return what, advice


def _problems(file: Path, location: tuple[Any, ...], message: str, found: Any) -> list[Problem]:
    field = ".".join(str(part) for part in location)
    if not field or (message.startswith("Value error, ") and "; " in message):  # one line per problem
        within = f"{field}." if field else ""
        lines = map(split_advice, message.removeprefix("Value error, ").splitlines())
        expected = "settings that fit together"
        return [Problem(f"{file}: {within}{w.split()[0]}", w, expected, advice) for w, advice in lines]
    known = {
        "Extra inputs are not permitted": ("an unknown field", "a field of the experiment", "correct or remove it"),
        "Field required": ("nothing", "a value", "write this field"),
    }
    unlike = repr(found), message[0].lower() + message[1:], "write a value that fits"
    return [Problem(f"{file}: {field}", *known.get(message, unlike))]
