"""Benchmark file: a base experiment, the trainings to compare, and the seeds with which each is repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from uncseg.config.experiment import Experiment
from uncseg.section import Section, Seed, free_name
from uncseg.studies.load_study import Study

Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*$", max_length=50), AfterValidator(free_name)
]


class TrainingEntry(Section):
    """A training in the file."""

    set: dict[str, Any] = Field(default_factory=dict)
    """FIELD: VALUE, set in the base."""
    maps: tuple[str, ...] = ()
    """Maps of one pass that are compared, in addition to the head's and those of evaluation.estimators."""


class Benchmark(Study):
    """One benchmark file."""

    kind = "benchmark"
    name: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """Each training is run once per seed."""
    folds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """None: all."""
    shared: str = "plain"
    """The training on whose segmentation all maps are scored besides their own, and whose cost is 1."""
    proposed: str | None = None
    """TRAINING/MAP: the proposed method, whose lead over every other one is shown as well. None: none."""
    least_dice: Annotated[float, Field(ge=0, le=1)] = 0.85
    """Mean Dice of the main region that a segmentation must reach before its uncertainty is compared."""
    cost_repeats: Annotated[int, Field(gt=0, le=1000)] = 5
    """How often the prediction of one case is timed with each estimator, in turn."""
    trainings: Annotated[dict[Name, TrainingEntry], Field(min_length=1)]

    def folds_of(self, experiment: Experiment) -> Sequence[int]:
        """Return the folds of a training."""
        return range(experiment.split.folds) if self.folds is None else self.folds

    @property
    def params(self) -> dict[str, str]:
        """Parameters of the benchmark's own run in MLflow."""
        return {
            "trainings": ", ".join(self.trainings),
            "seeds": ", ".join(map(str, self.seeds)),
            "shared": self.shared,
            "least_dice": str(self.least_dice),
            **{name: str(value) for name, value in self.overrides.items()},
        }


@dataclass(frozen=True)
class SeededTraining:
    """A training of the benchmark with one of its seeds."""

    name: str
    seed: int
    experiment: Experiment
    maps: tuple[str, ...]
    """Maps of one pass, as in the file."""

    @property
    def run_name(self) -> str:
        """Name of its run's folder."""
        return run_name(self.name, self.seed)


def run_name(training: str, seed: int) -> str:
    """Return the name of a training's run folder."""
    return f"{training}_seed_{seed}"


def training_of(run: str) -> str:
    """Inverse of :func:`run_name`, without the seed."""
    return run.rpartition("_seed_")[0]
