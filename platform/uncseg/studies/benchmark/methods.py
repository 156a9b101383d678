"""The methods that a benchmark compares: the maps of each training, and what each takes to compute."""

from dataclasses import dataclass

from uncseg.estimators.registry import AGAINST_DECISION, CROSS_FITTED, ESTIMATORS, FLOORS, HEAD, ORACLE
from uncseg.studies.benchmark.benchmark_file import SeededTraining, training_of


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    training: str
    map: str
    estimator: str | None
    """Estimator of several predictions; None: one pass."""
    passes: int
    """Passes of networks over a case."""
    models: int
    """Networks to train."""
    judged: str | None = None
    """The training whose segmentation an error network judges, and whose training cost is added."""
    learns_from: str | None = None
    """The training from which the head learns, and whose training cost is added."""
    learns: str | None = None
    """``memory.source``: ``members``, all of its networks, or ``cross_fitted``, one and what its folds learn."""

    @property
    def name(self) -> str:
        """TRAINING/MAP; the oracle belongs to no training."""
        return ORACLE if self.map == ORACLE else f"{self.training}/{self.map}"

    @property
    def prediction(self) -> str:
        """The prediction that gives the map, as costs name it: TRAINING/ for one pass, else TRAINING/ESTIMATOR."""
        return f"{self.training}/{self.estimator or (CROSS_FITTED if self.map == CROSS_FITTED else '')}"

    @property
    def against_decision(self) -> bool:
        """Whether the map depends on the decision that is judged."""
        return self.map.endswith(AGAINST_DECISION)

    @property
    def floor(self) -> bool:
        """Whether the probabilities or labels of one pass give the map, without training a network for it."""
        return self.map in FLOORS


def methods_of(training: SeededTraining, with_oracle: bool = False) -> list[Method]:
    """Return a training's rows: the head's map, the maps of one pass named in the file, every map of its estimators.

    Estimators of several passes also judge the decision itself, see
    :data:`~uncseg.estimators.registry.AGAINST_DECISION`.

    The oracle, which only phantoms have, is the row that no method can beat: the true probability of failure.
    """
    experiment, name = training.experiment, training.name
    judge = experiment.model.error_network
    judged = None if judge is None else training_of(judge.run)
    one_pass = dict.fromkeys(([HEAD] if experiment.model.uncertainty else []) + list(training.maps))
    models = 1 if judge is None else 2
    passes = 2 if judge is not None and judge.kind == "image_and_prediction" else 1
    memory = experiment.memory
    learns = {} if memory.run is None else {HEAD: (training_of(memory.run), memory.source)}
    rows = [(map_name, None, passes, models, judged, *learns.get(map_name, ())) for map_name in one_pass]
    methods = [Method(name, *row) for row in rows]
    members = experiment.training.members
    for chosen in experiment.evaluation.estimators.several_pass:
        estimator, settings = ESTIMATORS[chosen], getattr(experiment.evaluation.estimators, chosen)
        passes, networks = estimator.costs(settings, members)
        methods += [Method(name, map_name, chosen, passes, networks) for map_name in estimator.opinions]
    return [*methods, *([Method(name, ORACLE, None, 1, 1)] if with_oracle else [])]
