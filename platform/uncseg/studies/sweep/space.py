"""The space of a sweep: which fields may vary and in which words, and what a trial's values make of the base."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uncseg.config.experiment import Experiment, save_experiment
from uncseg.config.fields import get_field, is_within, set_field
from uncseg.errors import Problem
from uncseg.studies.sweep.sweep_file import Sweep

RANGES = ("uniform", "quniform", "loguniform", "qloguniform", "randint", "qrandint", "lograndint")
UPPER_LEFT_OUT = ("randint", "lograndint")  # their upper end is not drawn
GRID = "grid_search"
LISTS = ("choice", GRID)
# all trials share what is prepared, and one cluster, storage and MLflow
FIXED = ("name", "dataset", "split", "plan", "model.output", "resources", "tracking", "storage", "evaluation")


def parse_domain(words: Mapping[str, Any]) -> tuple[str, Any]:
    """A field's word and its arguments."""
    return next(iter(words.items()))


def grid_points(sweep: Sweep) -> int:
    """Points of the grid that the fields with ``grid_search`` span; 1 where there are none."""
    words = [parse_domain(words) for words in sweep.space.values()]
    return math.prod(len(given) for word, given in words if word == GRID)


def base_values(sweep: Sweep, base: Experiment) -> dict[str, Any] | None:
    """The base's own values of the sweep's fields; None where one of them is no point of the space, or of a grid."""
    content, values = base.model_dump(mode="json"), {}
    for field, words in sweep.space.items():
        word, given = parse_domain(words)
        value = get_field(content, field)
        if not (value in given if word == "choice" else word in RANGES and _in_range(value, word, given)):
            return None
        # as it is listed, 1 for 1.0 as well: one choice, one way to write it
        values[field] = given[given.index(value)] if word == "choice" else value
    return values


def _in_range(value: Any, word: str, given: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    low, high = given[:2]
    most = high - 1 if word in UPPER_LEFT_OUT else high
    on_step = not word.startswith("q") or _on_step(value, given[2])
    return low <= value <= most and on_step and ("int" not in word or value == int(value))


def trial_experiment(base: Experiment, name: str, folder: Path, values: Mapping[str, Any]) -> Experiment:
    """The base with one trial's values.

    Args:
        base: the sweep's base experiment.
        name: of the run.
        folder: where its folder lies.
        values: of the space's fields.

    Raises:
        ValidationError: where the values cannot be those of an experiment.
    """
    content = base.model_dump(mode="json")
    content["name"], content["storage"]["path"] = name, str(folder)
    content["tracking"]["uri"] = base.tracking_uri
    for field, value in values.items():
        set_field(content, field, value)
    return Experiment.model_validate(content)


def write_trial(base: Experiment, name: str, values: Mapping[str, Any], path: Path) -> None:
    """Write an experiment file, ready to run, with the values of a trial."""
    experiment = trial_experiment(base, name, base.storage.path.resolve(), values)
    tracking = experiment.tracking.model_copy(update={"uri": base.tracking.uri})
    save_experiment(experiment.model_copy(update={"tracking": tracking}), path)


def check_field(path: Path, base: Experiment, field: str, words: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a field of the space, or with its words; empty where nothing is."""
    where = f"{path}: space.{field}"
    if is_within(field, FIXED):
        return [Problem(where, "a field that all trials share", "a field of loss, memory, training or model", "remove")]
    if not _known(base, field):
        return [Problem(where, "an unknown field", "a field of the experiment, as loss.unc_weight", "correct it")]
    if len(words) != 1 or next(iter(words)) not in RANGES + LISTS:
        found, expected = ", ".join(words) or "nothing", "one of " + ", ".join(RANGES + LISTS)
        return [Problem(where, found, expected, f"write {field.rpartition('.')[2]}: {{uniform: [0, 1]}}, say")]
    word, given = parse_domain(words)
    problem = _check_arguments(where, word, given)
    if problem is not None:
        return [problem]
    if word in LISTS:
        return _check_values(where, base, field, given)
    low, high = given[:2]
    problems = _check_values(where, base, field, [low, high - 1 if word in UPPER_LEFT_OUT else high])
    # ends that are whole fit an integer; what is drawn between them may not be
    between = low + given[2] if word.startswith("q") else low + (high - low) / math.pi
    return problems if problems or word in UPPER_LEFT_OUT else _check_values(where, base, field, [between])


def _check_values(where: str, base: Experiment, field: str, values: Sequence[Any]) -> list[Problem]:
    """Those that the experiment would not take."""
    problems = []
    for value in values:
        try:
            trial_experiment(base, "trial", Path("trials"), {field: value})
        except ValidationError as error:
            item = error.errors()[0]
            said = item["msg"].removeprefix("Value error, ")
            problems.append(Problem(where, str(value), said[0].lower() + said[1:], "write values that fit the field"))
    return problems


def _known(base: Experiment, field: str) -> bool:
    try:
        return not isinstance(get_field(base.model_dump(mode="json"), field), dict)
    except KeyError:
        return False


def _check_arguments(where: str, word: str, given: Any) -> Problem | None:
    if word in LISTS:
        if isinstance(given, list) and given:
            return None
        return Problem(
            where, f"{word}: {given}", "a list with at least one value", f"write {{{word}: [0.2, 0.4]}}, say"
        )
    expected = "[lower, upper, step]" if word.startswith("q") else "[lower, upper]"
    numbers = isinstance(given, list) and all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in given
    )
    if not numbers or len(given) != (3 if word.startswith("q") else 2):
        return Problem(where, f"{word}: {given}", expected, "write numbers, lower before upper")
    if given[0] >= given[1]:
        return Problem(where, f"{word}: {given}", "an upper end above the lower", "write lower before upper")
    if "log" in word and given[0] <= 0:
        return Problem(where, f"{word}: {given}", "a lower end above 0", "write a small positive number, or uniform")
    if word.startswith("q") and given[2] <= 0:
        return Problem(where, f"{word}: {given}", "a step above 0", "write the distance between two values")
    if word.startswith("q") and not all(_on_step(end, given[2]) for end in given[:2]):
        found, expected = f"{word}: {given}", f"ends that are multiples of the step, {given[2]}"
        return Problem(where, found, expected, "write other ends, or another step")
    return None


def _on_step(value: float, step: float) -> bool:
    return math.isclose(value / step, round(value / step))
