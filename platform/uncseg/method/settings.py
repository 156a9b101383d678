"""What the trainer needs of an experiment. It travels inside nnU-Net's plans, under the key ``uncseg``.

So the trained folder carries its own settings, and nnU-Net's commands rebuild the network from it alone.
"""

from typing import Any

from uncseg.config.experiment import Experiment
from uncseg.config.sections import Estimators, Loss, Memory, Model, Training
from uncseg.section import Section

PLANS_KEY = "uncseg"


class TrainerSettings(Section):
    """The experiment's sections that training depends on; defaults where plans come from elsewhere."""

    model: Model = Model()
    loss: Loss = Loss()
    memory: Memory = Memory()
    training: Training = Training()
    estimators: Estimators = Estimators()
    """Judged on validation patches; they train nothing."""

    @classmethod
    def of(cls, experiment: Experiment) -> "TrainerSettings":
        """The settings of an experiment."""
        return cls(
            model=experiment.model,
            loss=experiment.loss,
            memory=experiment.memory,
            training=experiment.training,
            estimators=experiment.evaluation.estimators,
        )

    @classmethod
    def from_plans(cls, plans: dict[str, Any]) -> "TrainerSettings":
        """The settings in nnU-Net plans."""
        return cls.model_validate(plans.get(PLANS_KEY, {}))

    def into_plans(self, plans: dict[str, Any]) -> dict[str, Any]:
        """Plans with these settings inside (a shallow copy)."""
        return {**plans, PLANS_KEY: self.model_dump(mode="json")}
