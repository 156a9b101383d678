"""Single fields of an experiment by their dotted names, as ``loss.unc_weight``.

A class weight is named by its class: ``loss.weight_ce.et``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from uncseg.config.case_lists import short_lists
from uncseg.config.reading import Override
from uncseg.config.task_files import classes_of, short_task
from uncseg.config.yaml_text import UnreadableYaml, loses_words, parse_yaml
from uncseg.errors import Problem

CLASS_WEIGHTS = "loss.weight_ce"


def get_field(content: Mapping[str, Any], name: str) -> Any:
    """Return a field's value; None for a class weight while there are none.

    Raises:
        KeyError: there is no such field.
    """
    section, _, last = name.rpartition(".")
    if section == CLASS_WEIGHTS and last in (classes := classes_of(content)):
        weights = get_field(content, section)
        return None if weights is None else weights[classes.index(last)]
    value: Any = content
    for part in name.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(name)
        value = value[part]
    return value


def set_field(content: dict[str, Any], name: str, value: Any) -> None:
    """Set a field's value in place, adding sections that are absent or null, and 1 for the other class weights.

    Raises:
        KeyError: part of the name, given with the error, is not a section.
    """
    parent, _, last = name.rpartition(".")
    if parent == CLASS_WEIGHTS and last in (classes := classes_of(content)):
        loss = content.get("loss")
        known = loss.get("weight_ce") if isinstance(loss, dict) else None
        weights = dict(zip(classes, known if isinstance(known, list) else [1.0] * len(classes), strict=False))
        name, value = parent, list((weights | {last: value}).values())
    *sections, last = name.split(".")
    for section in sections:
        if content.get(section) is None:
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            raise KeyError(section)
    content[last] = value


def is_within(name: str, sections: Sequence[str]) -> bool:
    """Return whether a field is one of these fields, or lies in one of these sections."""
    return any(name == section or name.startswith(f"{section}.") for section in sections)


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, value before, value now) of the fields that differ; an absent field is None."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        yield name, before, now


def flatten(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of all fields as text, as YAML would write them.

    Class weights get an entry each (``loss.weight_ce_background``, …), because parallel coordinates need numbers; other
    lists are joined by ", ", and lists of cases and the task are shortened.
    """
    return _flatten(short_task(short_lists(content)), "", classes_of(content))


def _flatten(content: Mapping[str, Any], prefix: str, classes: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            texts |= _flatten(value, f"{name}.", classes)
        elif name == CLASS_WEIGHTS and value is not None:
            texts |= {f"{name}_{label}": _text(weight) for label, weight in zip(classes, value, strict=True)}
        else:
            texts[name] = ", ".join(map(_text, value)) if isinstance(value, list | tuple) else _text(value)
    return texts


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_assignments(fields: Mapping[str, Any]) -> list[str]:
    """Return ``FIELD=VALUE`` for each field, as :func:`apply_overrides` takes them."""
    return [f"{name}={_as_yaml(value)}" for name, value in fields.items()]


def _as_yaml(value: Any) -> str:
    """Return a value in one line of YAML, without the mark of the end that follows a single word."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n...\n").strip()


def as_overrides(assignments: Iterable[str | Override]) -> list[Override]:
    """Return ``FIELD=VALUE`` texts, as the option --set has them, with their place; those with a place as they are."""
    return [one if isinstance(one, Override) else Override(one) for one in assignments]


def problems_of_unused(assignments: Iterable[str], fields: Sequence[str], advice: str) -> list[Problem]:
    """Return a problem for each assignment to one of these fields or sections, which a command does not use."""
    found, expected = "a field that this command does not use", "one that it uses"
    unused = [one.where for one in as_overrides(assignments) if is_within(one.field, fields)]
    return [Problem(where, found, expected, advice) for where in unused]


def apply_overrides(content: dict[str, Any], assignments: Iterable[str | Override]) -> list[Problem]:
    """Set the fields of ``FIELD=VALUE`` assignments in place, in order, values in YAML; return what is wrong."""
    return [problem for one in as_overrides(assignments) if (problem := _apply(content, one)) is not None]


def _apply(content: dict[str, Any], override: Override) -> Problem | None:
    name, equals, text = override.assignment.partition("=")
    where = override.where
    if not equals or not name:
        return Problem(where, "no FIELD=VALUE", "for example loss.unc_weight=0.2", "write field, =, value")
    if not all(part.isidentifier() for part in name.split(".")):
        return Problem(where, f"{name!r}, which names no field", "SECTION.FIELD=VALUE", "correct the field's name")
    try:
        value = parse_yaml(text)
    except UnreadableYaml as error:
        found = "a value that is not YAML" if "not YAML" in error.found else error.found
        advice = error.advice if "quotes" in error.advice else f"{error.advice}, or put a text into quotes"
        return Problem(where, found, "a value, for example [1, 2]", advice)
    if loses_words(text, value):
        found = "a text that YAML shortens (what follows ' #', '&word' or '!word' before it, spaces around it)"
        return Problem(where, found, "the words as they are meant", f"put them into quotes: {name}='…'")
    before = content.get(name)
    if isinstance(value, dict) and isinstance(before, dict) and (lost := [*before.keys() - value.keys()]):
        found = f"a whole section, without {', '.join(sorted(lost))}, which would be lost"
        fields = ", ".join(f"{name}.{field}" for field in value)
        return Problem(where, found, "its fields, one by one", f"write {fields}" if fields else "leave it out")
    try:
        set_field(content, name, value)
    except KeyError as error:
        return Problem(where, f"{error.args[0]} is not a section", "SECTION.FIELD=VALUE", "correct the field's name")
    return None
