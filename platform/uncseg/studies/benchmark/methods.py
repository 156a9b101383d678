"""What a training is compared by: the maps that become rows of the table, and what each takes to compute."""

from dataclasses import dataclass

from uncseg.estimators.registry import BENCHMARK_FLOORS, ESTIMATORS, HEAD, ORACLE
from uncseg.studies.benchmark.benchmark_file import Training, training_of


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    training: str
    map: str
    estimator: str | None
    """Of several predictions; None: one pass."""
    passes: int
    """Of networks over a case."""
    models: int
    """Networks that are trained for it."""
    watches: str | None = None
    """The training whose segmentation an error network judges, which its own training comes on top of."""

    @property
    def name(self) -> str:
        """TRAINING/MAP; the oracle is nobody's."""
        if self.map == ORACLE:
            return ORACLE
        return f"{self.training}/{self.map}"

    @property
    def floor(self) -> bool:
        """Whether one pass's probabilities or labels give it, with nothing trained for it.

        So do they the entropy, which ranks voxels as var1shot does: one of the two is enough.
        """
        return self.map in BENCHMARK_FLOORS


def methods_of(training: Training) -> list[Method]:
    """A training's rows: the head's map, the maps of one pass that the file names, every map of its estimators."""
    experiment, name = training.experiment, training.name
    watched = experiment.model.error_network
    watches = None if watched is None else training_of(watched.run)
    one_pass = dict.fromkeys(([HEAD] if experiment.model.uncertainty else []) + list(training.maps))
    extra = 0 if watched is None else 1
    second = extra if watched is not None and watched.kind == "image_and_prediction" else 0
    methods = [Method(name, one, None, 1 + second, 1 + extra, watches) for one in one_pass]
    members = experiment.training.members
    for chosen in experiment.evaluation.estimators.several_pass:
        estimator, settings = ESTIMATORS[chosen], getattr(experiment.evaluation.estimators, chosen)
        passes, networks = estimator.passes(settings, members), estimator.networks(members)
        methods += [Method(name, map_name, chosen, passes, networks) for map_name in estimator.maps]
    return methods


def oracle_method(shared: str) -> Method:
    """The row of phantoms that nobody can beat: the true probability of failure."""
    return Method(shared, ORACLE, None, 1, 1)
