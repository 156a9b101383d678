"""Experiment: every knob, its unit, its default, checked all at once.

experiment, path = load_experiment(Path("experiments/demo.yaml"), overrides=["loss.unc_weight=0.2"])
"""

from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import model_validator

from uncseg.config.fields import apply_overrides
from uncseg.config.reading import read_yaml, validate
from uncseg.config.rules import problems_of_estimators, problems_of_model
from uncseg.config.sections import (
    Dataset,
    Evaluation,
    Loss,
    Memory,
    Model,
    Plan,
    Resources,
    Split,
    Storage,
    Tracking,
    Training,
)
from uncseg.files import write_text
from uncseg.section import Name, Section


class Experiment(Section):
    """One experiment file: comparable runs come out."""

    name: Name
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
    return validate(Experiment, content, path, title, apply_overrides(content, overrides or []))


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment as resolved: every field, defaults included, paths absolute."""
    content = experiment.resolved().model_dump(mode="json")
    write_text(path, yaml.safe_dump(content, sort_keys=False))
