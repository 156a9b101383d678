"""What the trainer reads of an experiment. It travels inside nnU-Net's plans, under the key ``uncseg``.

So a trained folder carries its own settings, and nnU-Net's commands rebuild the network from the folder alone.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_serializer, field_validator

from uncseg.config.experiment import Experiment
from uncseg.config.sections import Estimators
from uncseg.config.training_sections import Loss, Memory, Model, Training
from uncseg.files import digest, json_text
from uncseg.section import Section
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.outputs import Outputs
from uncseg.tasks.task import Task

PLANS_KEY = "uncseg"


def model_digest(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> str:
    """Return a digest of plans.json and dataset.json, without settings that may change from fold to fold of a run."""
    own = plans.get(PLANS_KEY)
    if isinstance(own, dict):
        own = {name: value for name, value in own.items() if name != "estimators"}
        if isinstance(training := own.get("training"), dict):
            own["training"] = {name: value for name, value in training.items() if name != "loader_processes"}
    return digest([{**plans, PLANS_KEY: own}, dict(dataset_json)])


def warmup_factor(epoch: int, warmup_epochs: int) -> float:
    """Return the share of the uncertainty terms' weight in an epoch (counted from 0): linear from 0 to 1, then 1."""
    return 1.0 if warmup_epochs == 0 else min(1.0, epoch / warmup_epochs)


class TrainerSettings(Section):
    """The experiment's sections that training depends on; defaults for plans that come from elsewhere."""

    task: Task = Field(default_factory=paper_task)
    model: Model = Model()
    loss: Loss = Loss()
    memory: Memory = Memory()
    training: Training = Training()
    estimators: Estimators = Estimators()
    """Validated on patches; they train nothing."""

    @field_validator("task", mode="before")
    @classmethod
    def _task_of_text(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_serializer("task")
    def _task_as_text(self, task: Task) -> str:
        # the order of labels and regions has a meaning, and whoever writes plans.json again may sort its keys
        return json_text(task.model_dump(mode="json"))

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> "TrainerSettings":
        """Take the settings out of an experiment."""
        sections = {name: getattr(experiment, name) for name in ("model", "loss", "memory", "training")}
        return cls(task=experiment.dataset.task, **sections, estimators=experiment.evaluation.estimators)

    @property
    def outputs(self) -> Outputs:
        """What the channels of the segmentation mean."""
        return Outputs.of(self.task, self.model.output)

    @property
    def loss_terms(self) -> tuple[str, ...]:
        """Names of the terms of the loss that a training computes; ``loss/terms.py`` says how."""
        judges = self.model.error_network is not None
        head = self.model.uncertainty and not judges
        in_mask = self.loss.unc_mean == "mask"
        used = {
            "seg": True,
            "error": judges,
            "unc": head and not in_mask,
            "unc_in_mask": head and in_mask,
            "rmsd": head,
            "one_minus_corr": head,
            "entropy": head and self.loss.entropy_weight > 0,
            "output_l2": self.loss.output_l2 > 0,
        }
        return tuple(name for name, is_used in used.items() if is_used)

    @classmethod
    def from_plans(cls, plans: dict[str, Any]) -> "TrainerSettings":
        """Read the settings in nnU-Net's plans."""
        return cls.model_validate(plans.get(PLANS_KEY, {}))

    def into_plans(self, plans: dict[str, Any]) -> dict[str, Any]:
        """Return plans with these settings inside (a shallow copy)."""
        return {**plans, PLANS_KEY: self.model_dump(mode="json")}
