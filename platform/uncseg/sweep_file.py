"""Sweep file: a base experiment, what to vary, on which folds, and what to look for.

sweep = load_sweep(Path("experiments/sweeps/demo.yaml"))
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from uncseg.config import (
    LABEL_NAMES,
    Experiment,
    Positive,
    Section,
    load_experiment,
    problems_of,
    read_yaml,
    save_experiment,
)
from uncseg.errors import Problem, ProblemsFound

RANGES = ("uniform", "quniform", "loguniform", "qloguniform", "randint", "qrandint", "lograndint")
LISTS = ("choice", "grid_search")
# all trials share what is prepared, and one cluster, storage and MLflow
FIXED = ("name", "dataset", "split", "plan", "model.head", "resources", "tracking", "storage", "evaluation")
WEIGHT_CE = "loss.weight_ce"


class Objective(Section):
    """What a trial is judged by: a metric of the epochs, as a mean over its folds."""

    metric: Annotated[str, Field(pattern=r"^(train|val_patch|uncertainty)/.+")] = "val_patch/dice_mean"
    mode: Literal["max", "min"] = "max"


class Scheduler(Section):
    """Which trials go on. fifo: all; asha: those whose objective is among the best at each rung."""

    type: Literal["fifo", "asha"] = "asha"
    grace_epochs: Positive = 1
    """Epochs that every trial gets."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """One in so many goes on from a rung to the next."""


class Sweep(Section):
    """One sweep file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    base: Path
    """Experiment file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """FIELD: VALUE over the base."""
    space: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """FIELD: {one of Tune's words: its arguments}, as loss.unc_weight: {uniform: [0, 1]}. A weight of weight_ce is
    named by its class, as loss.weight_ce.ed."""
    folds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """Folds that each trial trains, in step."""
    trials: Positive = 1
    """Draws from the space; with grid_search, for each point of the grid."""
    objective: Objective = Objective()
    scheduler: Scheduler = Scheduler()
    seed: int = 0
    """Of the draws."""


def load_sweep(path: Path, overrides: list[str] | None = None) -> tuple[Sweep, Experiment]:
    """Read and check a sweep file and the experiment that it starts from.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` for the base experiment, over the sweep's own.

    Returns:
        The sweep, and the base with the overrides of both.

    Raises:
        ProblemsFound: with every problem of the file at once; those of the base first, since the space is checked
            against it.
    """
    title = f"The sweep {path} cannot be used."
    try:
        sweep = Sweep.model_validate(read_yaml(path, title, "experiments/sweeps/demo.yaml"))
    except ValidationError as error:
        raise ProblemsFound(title, problems_of(path, error)) from error
    own = [f"{field}={yaml.safe_dump(value, default_flow_style=True)}" for field, value in sweep.overrides.items()]
    base = load_experiment(sweep.base, own + (overrides or []))
    wrong = [fold for fold in sweep.folds if fold not in range(base.split.folds)]
    problems = [
        Problem(f"{path}: folds", str(fold), f"folds from 0 to {base.split.folds - 1}", "correct the list")
        for fold in wrong
    ]
    if len(set(sweep.folds)) < len(sweep.folds):
        problems.append(Problem(f"{path}: folds", str(list(sweep.folds)), "each fold once", "correct the list"))
    for field, words in sweep.space.items():
        problems += _check_field(path, base, field, words)
    if problems:
        raise ProblemsFound(title, problems)
    return sweep, base


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
        parent, _, last = field.rpartition(".")
        if parent == WEIGHT_CE:
            weights = list(content["loss"]["weight_ce"] or (1.0, 1.0, 1.0, 1.0))
            weights[LABEL_NAMES.index(last)] = value
            content["loss"]["weight_ce"] = weights
        else:
            section = content
            for part in parent.split("."):
                section = section[part]
            section[last] = value
    return Experiment.model_validate(content)


def write_best(base: Experiment, sweep: Sweep, values: Mapping[str, Any], path: Path) -> None:
    """Write an experiment file, ready to run, with the values of the best trial."""
    best = trial_experiment(base, f"{sweep.name}_best", base.storage.path.resolve(), values)
    tracking = best.tracking.model_copy(update={"uri": base.tracking.uri})
    save_experiment(best.model_copy(update={"tracking": tracking}), path)


def _check_field(path: Path, base: Experiment, field: str, words: dict[str, Any]) -> list[Problem]:
    where = f"{path}: space.{field}"
    if any(field == fixed or field.startswith(f"{fixed}.") for fixed in FIXED):
        return [Problem(where, "a field that all trials share", "a field of loss, memory, training or model", "remove")]
    if not _known(base, field):
        return [Problem(where, "an unknown field", "a field of the experiment, as loss.unc_weight", "correct it")]
    if len(words) != 1 or next(iter(words)) not in RANGES + LISTS:
        found, expected = ", ".join(words) or "nothing", "one of " + ", ".join(RANGES + LISTS)
        return [Problem(where, found, expected, f"write {field.rpartition('.')[2]}: {{uniform: [0, 1]}}, say")]
    word, given = next(iter(words.items()))
    problem = _check_arguments(where, word, given)
    if problem is not None:
        return [problem]
    problems = []
    for value in given if word in LISTS else given[:2]:
        try:
            trial_experiment(base, "trial", Path("trials"), {field: value})
        except ValidationError as error:
            item = error.errors()[0]
            said = item["msg"].removeprefix("Value error, ")
            problems.append(Problem(where, str(value), said[0].lower() + said[1:], "write values that fit the field"))
    return problems


def _known(base: Experiment, field: str) -> bool:
    parent, _, last = field.rpartition(".")
    if parent == WEIGHT_CE:
        return last in LABEL_NAMES
    content: Any = base.model_dump(mode="json")
    for part in field.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return not isinstance(content, dict)


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
    return None
