"""Before anything costs money: what would make a run fail later, all of it at once."""

from uncseg.cluster.node_checks import check_storage
from uncseg.cluster.nodes import Cluster
from uncseg.cluster.resources import Slots, plan_slots
from uncseg.config.experiment import Experiment
from uncseg.dataset.preparation import chosen_cases
from uncseg.errors import Problem, ProblemsFound
from uncseg.tracking.opening import AnotherVersion, open_store


def preflight(experiment: Experiment, folds: int, cluster: Cluster, own_ray: bool, begun: bool) -> Slots:
    """Look for everything that would make a run fail later.

    Args:
        experiment: the run's.
        folds: how many to train.
        cluster: the connected one.
        own_ray: Ray is this process's own: its one node is this machine.
        begun: the run was started before. Then MLflow may be away: the spool keeps what it misses.

    Returns:
        What a fold takes, and how many fit.

    Raises:
        ProblemsFound: all that is wrong, together.
    """
    problems = check_storage(experiment, own_ray)
    slots = None
    try:
        slots = plan_slots(experiment.resources, folds, cluster)
    except ProblemsFound as error:
        problems += error.problems
    database = experiment.storage.path / "mlflow.db"
    if experiment.tracking.uri is not None or database.is_file():
        try:
            open_store(experiment.tracking_uri, experiment.tracking.experiment)
        except ProblemsFound as error:
            problems += error.problems if isinstance(error, AnotherVersion) or not begun else []
    if slots is None or problems:
        raise ProblemsFound("The run would fail.", problems + _check_cases(experiment))
    return slots  # the cases come next: preparing looks into every one of them


def _check_cases(experiment: Experiment) -> list[Problem]:
    """What is wrong with the folder of cases, names only."""
    try:
        return chosen_cases(experiment)[1]
    except ProblemsFound as error:
        return error.problems
