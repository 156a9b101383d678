"""YAML as text: read with every way in which it can fail named, before anything is made of it.

What is refused: a field that is there twice, of which YAML's reader keeps the last; aliases that unfold into millions
of values or into themselves; characters that no file can be written with; values within values without end, for which
the reader in C, five times as fast as that in Python, has no limit of its own.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

MOST_VALUES = 500_000
"""Values of a text with its aliases unfolded: an experiment of 100,000 cases has fewer."""
DEEPEST = 100
"""Values within values: an experiment has fewer than ten."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass
class UnreadableYaml(Exception):
    """What is wrong with a text that should be YAML; ``line`` from 1, None where it is not known."""

    found: str
    expected: str
    advice: str
    line: int | None = None


def parse_yaml(text: str) -> Any:
    """Return what a text in YAML says.

    Raises:
        UnreadableYaml: saying why it cannot be read.
    """
    fields = "SECTION: and FIELD: VALUE lines"
    try:
        _require_shallow(text)
        loader = _LOADER(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        raise UnreadableYaml("text that is not YAML", fields, "correct the syntax", line) from error
    except UnicodeEncodeError as error:
        raise UnreadableYaml("text that is not UTF-8", fields, "write it in UTF-8") from error
    # what YAML's reader does with 2026-13-01, with !!int or !!bool before a word, and with a number of 5000 digits
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
        reason = str(error) if isinstance(error, ValueError) else "a value that is not of the type before it"
        reason = "a number of thousands of digits" if "digits" in reason else reason
        raise UnreadableYaml(reason[:200], fields, "correct the value, or put a text into quotes") from error


def loses_words(text: str, value: Any) -> bool:
    """Return whether YAML takes words of a text for something else, as for a comment: ``/a b #1``, ``&a /b``, ``/b ``.

    Args:
        text: one value in YAML that can be read; within quotes nothing is lost.
        value: what it says.
    """
    if any(isinstance(token, yaml.AnchorToken | yaml.TagToken | yaml.AliasToken) for token in yaml.scan(text)):
        return True
    if value is None:
        return text.strip() not in ("", "~", "null", "Null", "NULL")
    return isinstance(value, str) and text.strip()[0] not in "'\"" and value != text


def _require_shallow(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            found = f"values within values, more than {DEEPEST} deep"
            line = event.start_mark.line + 1 if event.start_mark else None
            raise UnreadableYaml(found, "SECTION: and FIELD: VALUE lines", "correct the syntax", line)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values of a node with all aliases unfolded; ``known`` has those of nodes seen before."""
    if id(node) in known:
        if not known[id(node)]:
            raise _refused(node, "an alias of what it lies in", "a value", "write the value in place of the alias")
        return known[id(node)]
    known[id(node)] = number = 0
    if isinstance(node, yaml.ScalarNode):
        if unfit := _CONTROL.search(node.value):
            raise _refused(node, f"the character {unfit[0]!r}", "text", "remove it")
        number = 1
    elif isinstance(node, yaml.MappingNode):
        _require_each_once(node)
        number = 1 + sum(_count(key, known) + _count(value, known) for key, value in node.value)
    else:
        number = 1 + sum(_count(one, known) for one in node.value)
    if number > MOST_VALUES:
        raise _refused(
            node, f"more than {MOST_VALUES} values", "an experiment's fields", "remove aliases, or shorten it"
        )
    known[id(node)] = number
    return number


def _require_each_once(node: yaml.MappingNode) -> None:
    seen = set[tuple[str, str]]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise _refused(key, f"{key.value} a second time", "each field once", "remove one of the two")
            seen.add((key.tag, key.value))


def _refused(node: yaml.Node, found: str, expected: str, advice: str) -> UnreadableYaml:
    return UnreadableYaml(found, expected, advice, node.start_mark.line + 1)
