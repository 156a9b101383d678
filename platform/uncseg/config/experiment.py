"""Experiment: every knob, its unit, its default, checked all at once.

experiment, path = load_experiment(Path("experiments/demo.yaml"), overrides=["loss.unc_weight=0.2"])
"""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, model_validator

from uncseg.config.rules import problems_of_estimators, problems_of_model
from uncseg.config.sections import (
    Dataset,
    Evaluation,
    Loss,
    Memory,
    Model,
    Plan,
    Resources,
    Section,
    Split,
    Storage,
    Tracking,
    Training,
)
from uncseg.errors import Problem, ProblemsFound


class Experiment(Section):
    """One experiment file: comparable runs come out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    dataset: Dataset
    split: Split = Split()
    plan: Plan = Plan()
    model: Model = Model()
    loss: Loss = Loss()
    memory: Memory = Memory()
    training: Training = Training()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    storage: Storage = Storage()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "Experiment":
        wrong = problems_of_model(self.model, self.memory, self.plan)
        wrong += problems_of_estimators(self.evaluation, self.model, self.training)
        if self.model.output == "regions" and self.loss.weight_ce is not None:
            wrong.append(
                "loss.weight_ce weighs classes, and model.output: regions has none; "
                "remove loss.weight_ce or write model.output: labels"
            )
        dimensions = 2 if self.plan.configuration == "2d" else 3
        if self.plan.patch_size is not None and len(self.plan.patch_size) != dimensions:
            wrong.append(
                f"plan.patch_size has {len(self.plan.patch_size)} numbers, and {self.plan.configuration} needs "
                f"{dimensions}; write {dimensions} numbers"
            )
        if self.plan.target_spacing_mm is not None and min(self.plan.target_spacing_mm) <= 0:
            wrong.append("plan.target_spacing_mm must be positive; write millimetres per voxel, as [1.0, 1.0, 1.0]")
        if urlsplit(self.tracking.uri or "").password is not None:
            wrong.append(
                "tracking.uri holds a password, which would be kept with the run and shown; write the address without "
                "it, and put it into the environment: MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD for PostgreSQL"
            )
        if self.loss.warmup_epochs > self.training.epochs:
            wrong.append(
                f"loss.warmup_epochs ({self.loss.warmup_epochs}) is longer than training.epochs "
                f"({self.training.epochs}); write at most {self.training.epochs}"
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def resolved(self) -> "Experiment":
        """The same with absolute paths, for processes that have another working directory."""
        exclude = self.dataset.exclude
        exclude = exclude.resolve() if isinstance(exclude, Path) else exclude
        dataset = self.dataset.model_copy(update={"path": self.dataset.path.resolve(), "exclude": exclude})
        storage = self.storage.model_copy(update={"path": self.storage.path.resolve()})
        return self.model_copy(update={"dataset": dataset, "storage": storage})

    @property
    def run_folder(self) -> Path:
        """Absolute folder of this experiment's run."""
        return self.storage.path.resolve() / self.name

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI, the SQLite default filled in."""
        return self.tracking.uri or f"sqlite:///{self.storage.path.resolve() / 'mlflow.db'}"


def _problem(file: Path, location: tuple[Any, ...], message: str, found: Any) -> list[Problem]:
    field = ".".join(str(part) for part in location)
    if not field:  # from _fields_fit_together: one line a problem, "what; what to do"
        problems = []
        for line in message.removeprefix("Value error, ").splitlines():
            what, _, advice = line.rpartition("; ")
            problems.append(Problem(f"{file}: {what.split()[0]}", what, "settings that fit together", advice))
        return problems
    if message == "Extra inputs are not permitted":
        return [Problem(f"{file}: {field}", "an unknown field", "a field of the experiment", "correct or remove it")]
    if message == "Field required":
        return [Problem(f"{file}: {field}", "nothing", "a value", "write this field")]
    return [Problem(f"{file}: {field}", repr(found), message[0].lower() + message[1:], "write a value that fits")]


def apply_override(content: dict[str, Any], assignment: str) -> Problem | None:
    """Put the value of ``FIELD=VALUE`` into content; what is wrong with the assignment, or None."""
    field, equals, value = assignment.partition("=")
    where = f"--set {assignment}"
    if not equals or not field:
        return Problem(where, "no FIELD=VALUE", "for example loss.unc_weight=0.2", "write field, =, value")
    *sections, last = field.split(".")
    for section in sections:
        if content.get(section) is None:  # also where a saved experiment says that there is none
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            return Problem(where, f"{section} is not a section", "SECTION.FIELD=VALUE", "correct the field's name")
    new, before = yaml.safe_load(value), content.get(last)
    if not sections and isinstance(new, dict) and isinstance(before, dict) and (lost := [*before.keys() - new.keys()]):
        found = f"a whole section, without {', '.join(sorted(lost))}, which would be lost"
        fields = ", ".join(f"{last}.{field}" for field in new)
        return Problem(where.strip(), found, "its fields, one by one", f"write {fields}" if fields else "leave it out")
    content[last] = new
    return None


def problems_of(file: Path, error: ValidationError) -> list[Problem]:
    """What pydantic found wrong in a file, for people."""
    return [p for item in error.errors() for p in _problem(file, item["loc"], item["msg"], item["input"])]


def read_yaml(path: Path, title: str, example: str) -> dict[str, Any]:
    """The fields of a YAML file.

    Args:
        path: the file.
        title: of the error.
        example: a file to start from, named where this one is empty.

    Raises:
        ProblemsFound: where it cannot be read, or holds no fields.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(str(path), error.strerror or str(error), "a readable YAML file", "correct the path")
        raise ProblemsFound(title, [problem]) from error
    except yaml.YAMLError as error:
        where = str(path)
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            where = f"{path}, line {error.problem_mark.line + 1}"
        problem = Problem(where, "text that is not YAML", "SECTION: and FIELD: VALUE lines", "correct the syntax")
        raise ProblemsFound(title, [problem]) from error
    if not isinstance(content, dict):
        raise ProblemsFound(title, [Problem(str(path), "no fields", "name, …", f"start from {example}")])
    return content


def load_experiment(path: Path, overrides: list[str] | None = None) -> Experiment:
    """Read and check an experiment file.

    Relative paths in the file are taken from the working directory.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` assignments, the value in YAML, applied in order.

    Raises:
        ProblemsFound: with every problem of file and overrides at once.
    """
    title = f"The experiment {path} cannot be used."
    content = read_yaml(path, title, "experiments/demo.yaml")
    problems = [p for p in (apply_override(content, assignment) for assignment in overrides or []) if p is not None]
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ProblemsFound(title, problems + problems_of(path, error)) from error
    if problems:
        raise ProblemsFound(title, problems)
    return experiment


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment as resolved: every field, defaults included, paths absolute."""
    from uncseg.files import write_text

    content = experiment.resolved().model_dump(mode="json")
    write_text(path, yaml.safe_dump(content, sort_keys=False))
