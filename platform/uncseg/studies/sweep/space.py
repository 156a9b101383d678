"""The space of a sweep: the fields that vary, the domain of each, and the experiment that a trial's values give.

A domain is written as a function of Ray Tune's search space with its arguments, as {uniform: [0, 1]}.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from uncseg.config.experiment import Experiment, save_experiment
from uncseg.config.fields import CLASS_WEIGHTS, flatten, get_field, is_within, set_field
from uncseg.config.reading import shortened
from uncseg.errors import Problem, did_you_mean

RANGES = ("uniform", "quniform", "loguniform", "qloguniform", "randint", "qrandint", "lograndint")
EXCLUSIVE = ("randint", "lograndint")
"""Ranges whose upper end is not drawn."""
GRID = "grid_search"
LISTS = ("choice", GRID)
# all trials share what is prepared, and one cluster, storage and MLflow
FIXED = (
    *("name", "dataset", "split", "plan", "model.output", "resources", "tracking", "storage", "evaluation"),
    *("memory.run", "model.error_network.run"),  # a run that is needed is checked before any trial is trained
    "training.averaged_epochs",  # trials are compared while they train, by the weights of the last step
)
Domain = Mapping[str, Any]


def parse_domain(domain: Domain) -> tuple[str, Any]:
    """Return the name and the arguments of a domain's function."""
    return next(iter(domain.items()))


def grid_points(space: Mapping[str, Domain]) -> int:
    """Return the number of points of the grid that the fields with ``grid_search`` span; 1 where there are none."""
    return math.prod(len(arguments) for name, arguments in map(parse_domain, space.values()) if name == GRID)


def base_values(space: Mapping[str, Domain], base: Experiment) -> dict[str, Any] | None:
    """Return the base's values of the space's fields; None where one is outside its domain or has ``grid_search``."""
    content, values = base.model_dump(mode="json"), {}
    for field, domain in space.items():
        name, arguments = parse_domain(domain)
        value = get_field(content, field)
        if not (value in arguments if name == "choice" else name in RANGES and _in_range(value, name, arguments)):
            return None
        # as it is listed, also 1 in place of 1.0: each choice is written in one way
        values[field] = arguments[arguments.index(value)] if name == "choice" else value
    return values


def is_number(value: Any) -> bool:
    """Return whether a value is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(value: Any, name: str, arguments: Any) -> bool:
    if not is_number(value):
        return False
    low, high = arguments[:2]
    most = high - 1 if name in EXCLUSIVE else high
    on_step = not name.startswith("q") or _on_step(value, arguments[2])
    return low <= value <= most and on_step and ("int" not in name or value == int(value))


def trial_experiment(base: Experiment, name: str, folder: Path, values: Mapping[str, Any]) -> Experiment:
    """Return the base with the values of one trial, whose run is ``folder``/``name``.

    Raises:
        ValidationError: where an experiment cannot have these values.
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


def check_field(base: Experiment, field: str, domain: Domain) -> list[Problem]:
    """Return what is wrong with a field of the space or with its domain."""
    where = f"space.{field}"
    if is_within(field, FIXED):
        return [
            Problem(
                where, "a field that all trials share", "a field of loss, memory, training, model or failures", "remove"
            )
        ]
    if not _known(base, field):
        expected = "a field of the experiment, as loss.unc_weight"
        if is_within(field, (CLASS_WEIGHTS,)):
            expected = f"a class of {base.dataset.task.name}: {', '.join(base.dataset.task.classes)}"
        advice = did_you_mean(field, flatten(base.model_dump(mode="json")), "correct it")
        return [Problem(where, "an unknown field", expected, advice)]
    if len(domain) != 1 or next(iter(domain)) not in RANGES + LISTS:
        found, expected = ", ".join(domain) or "nothing", "one of " + ", ".join(RANGES + LISTS)
        advice = f"write {field.rpartition('.')[2]}: {{uniform: [0, 1]}}, for example"
        return [Problem(where, found, expected, did_you_mean(found, RANGES + LISTS, advice))]
    name, arguments = parse_domain(domain)
    if name in LISTS:
        if isinstance(arguments, list) and arguments:
            return _check_values(where, base, field, arguments)
        expected, advice = "a list with at least one value", "write [0.2, 0.4], for example"
        return [Problem(where, f"{name}: {arguments}", expected, advice)]
    wrong = _wrong_range(name, arguments)
    if wrong is not None:
        return [Problem(where, shortened(f"{name}: {arguments}"), *wrong)]
    low, high = arguments[:2]
    problems = _check_values(where, base, field, [low, high - 1 if name in EXCLUSIVE else high])
    # ends that are whole numbers fit an integer; what is drawn between them may not
    between = low + arguments[2] if name.startswith("q") else low + (float(high) - float(low)) / math.pi
    return problems if problems or name in EXCLUSIVE else _check_values(where, base, field, [between])


def _check_values(where: str, base: Experiment, field: str, values: Sequence[Any]) -> list[Problem]:
    """Return a problem for each value that the experiment refuses."""
    problems = []
    for value in values:
        try:
            trial_experiment(base, "trial", Path("trials"), {field: value})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            expected = reason[0].lower() + reason[1:]
            problems.append(Problem(where, shortened(str(value)), expected, "write values that fit the field"))
    return problems


def _known(base: Experiment, field: str) -> bool:
    try:
        return not isinstance(get_field(base.model_dump(mode="json"), field), dict)
    except KeyError:
        return False


def _wrong_range(name: str, arguments: Any) -> tuple[str, str] | None:
    """Return what the arguments of a range should be, and an advice; None where they are right."""
    stepped = name.startswith("q")
    parts = ["lower", "upper", "step"][: 3 if stepped else 2]
    numbers = isinstance(arguments, list) and all(is_number(n) and _as_float(n) is not None for n in arguments)
    if not numbers or len(arguments) != len(parts):
        return f"[{', '.join(parts)}]", "write numbers, lower before upper"
    low, high, *step = arguments
    if low >= high:
        return "an upper end above the lower", "write lower before upper"
    if "log" in name and low <= 0:
        return "a lower end above 0", "write a small positive number, or uniform"
    if stepped and step[0] <= 0:
        return "a step above 0", "write the distance between two values"
    if stepped and not (_on_step(low, step[0]) and _on_step(high, step[0])):
        return f"ends that are multiples of the step, {step[0]}", "write other ends, or another step"
    return None


def _on_step(value: float, step: float) -> bool:
    try:
        steps = value / step
        return math.isclose(steps, round(steps))
    except (OverflowError, ValueError):  # more steps than a number can count
        return False


def _as_float(number: float) -> float | None:
    """Return a number as a float; None for what no float can be: infinite, or of hundreds of digits."""
    try:
        return float(number) if math.isfinite(number) else None
    except OverflowError:
        return None
