"""The experiment file: all settings of a run, checked all at once.

experiment = load_experiment(Path("experiments/demo.yaml"), overrides=["loss.unc_weight=0.2"])
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import model_validator
from pydantic_core import to_jsonable_python

from uncseg.config import sections, training_sections
from uncseg.config.addresses import DATABASE, sqlite_address
from uncseg.config.case_lists import read_lists
from uncseg.config.failures import Failures
from uncseg.config.fields import apply_overrides, as_overrides
from uncseg.config.reading import Override, problems_of_long_paths, read_yaml, require_kind, validate
from uncseg.config.rules import (
    problems_beside_a_wrong_task,
    problems_of_estimators,
    rules_of_failures,
    rules_of_model,
    rules_of_published,
    rules_of_split,
    rules_of_task,
    rules_of_values,
)
from uncseg.config.task_files import resolve_task
from uncseg.errors import ProblemsFound
from uncseg.files import write_text
from uncseg.section import RunName, Section, types_in, without_gone


class Experiment(Section):
    """One experiment file; ``name`` is also the name of its run."""

    name: RunName
    dataset: sections.Dataset
    split: sections.Split = sections.Split()
    plan: sections.Plan = sections.Plan()
    model: training_sections.Model = training_sections.Model()
    loss: training_sections.Loss = training_sections.Loss()
    memory: training_sections.Memory = training_sections.Memory()
    training: training_sections.Training = training_sections.Training()
    failures: Failures = Failures()
    resources: sections.Resources = sections.Resources()
    tracking: sections.Tracking = sections.Tracking()
    storage: sections.Storage = sections.Storage()
    evaluation: sections.Evaluation = sections.Evaluation()

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "Experiment":
        rules = {
            **rules_of_task(self.dataset, self.model, self.loss),
            **rules_of_split(self.split),
            **rules_of_model(self.model, self.memory, self.plan),
            **rules_of_failures(self.failures),
            **rules_of_published(self.memory, self.model, self.training, self.resources),
            **dict.fromkeys(problems_of_estimators(self.evaluation, self.model, self.training), True),
            **rules_of_values(self.model, self.loss, self.plan, self.training, self.tracking),
        }
        if wrong := [problem for problem, found in rules.items() if found]:
            raise ValueError("\n".join(wrong))
        return self

    def resolved(self) -> "Experiment":
        """Return the experiment with absolute paths, for processes that have another working directory."""
        exclude = cases.resolve() if isinstance(cases := self.dataset.exclude, Path) else cases
        dataset = self.dataset.model_copy(update={"path": self.dataset.path.resolve(), "exclude": exclude})
        storage = self.storage.model_copy(update={"path": self.storage.path.resolve()})
        return self.model_copy(update={"dataset": dataset, "storage": storage})

    @property
    def run_folder(self) -> Path:
        """Absolute folder of this experiment's run."""
        return self.storage.path.resolve() / self.name

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI, with the default, an SQLite database, filled in."""
        return self.tracking.uri or sqlite_address(self.storage.path / DATABASE)


def load_experiment(path: Path, overrides: Sequence[str | Override] | None = None, saved: bool = False) -> Experiment:
    """Read and check an experiment file, its task, and the lists of cases that it names.

    Relative paths start from the working directory.

    The overrides are ``FIELD=VALUE`` assignments, the value in YAML, applied in order. Of a run's ``saved`` experiment
    newer fields stand at what they were before there were these (:func:`with_new_fields`).

    Raises:
        ProblemsFound: with every problem of the file and the overrides at once.
    """
    title = f"The experiment {path} cannot be used."
    content, settings = read_yaml(path, title, "experiments/demo.yaml"), as_overrides(overrides or [])
    require_kind(content, path, "experiment", title)
    content = with_new_fields(content) if saved else content
    problems = apply_overrides(content, settings)
    if too_long := problems_of_long_paths(content, path, settings):  # before any of them is looked for
        raise ProblemsFound(title, problems + too_long)
    problems += resolve_task(content) + read_lists(content) + problems_beside_a_wrong_task(content)
    return validate(Experiment, content, path, title, problems, settings)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment with every field, defaults included, and absolute paths."""
    write_text(path, yaml.safe_dump(experiment.resolved().model_dump(mode="json"), sort_keys=False))


def saved_experiment(content: Mapping[str, Any]) -> Experiment:
    """Return the experiment that a run or a study has saved; raises ValidationError where it is not valid."""
    return Experiment.model_validate(with_new_fields(content))


def with_new_fields(content: Mapping[str, Any], section: type[Section] = Experiment) -> dict[str, Any]:
    """Return a saved section as this version would write it: with fields that are new, at their defaults, and without
    those that are gone."""
    filled = without_gone(content, section.gone)
    for name, field in section.model_fields.items():
        if name not in filled:
            if name in section.older:
                filled[name] = section.older[name]
            elif not field.is_required():
                filled[name] = to_jsonable_python(field.get_default(call_default_factory=True))
        elif isinstance(filled[name], Mapping):
            for kind in types_in(field.annotation):  # also of a section that may be null
                if isinstance(kind, type) and issubclass(kind, Section):
                    filled[name] = with_new_fields(filled[name], kind)
    return filled
