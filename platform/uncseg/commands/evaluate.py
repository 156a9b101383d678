"""``uncseg evaluate``, and the same as the last part of ``uncseg cross-validate``."""

from pathlib import Path

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.node_checks import require_storage
from uncseg.cluster.resources import plan_slots
from uncseg.cluster.session import ray_session
from uncseg.console import counting
from uncseg.errors import Problem, ProblemsFound
from uncseg.runs.evaluate_folds import evaluate_folds
from uncseg.runs.opening import finished_folds, run_to_use
from uncseg.runs.prepare_cases import prepare


def evaluate_run(root: Path, overrides: list[str] | None = None, trust: bool = False) -> int:
    """Predict and score a run's finished folds, and write its tables and figures (``uncseg evaluate RUN``).

    Args:
        root: the run's folder.
        overrides: ``FIELD=VALUE`` for the experiment that it was started with; what it computes can't change.
        trust: let checkpoints run code of their own.
    """
    run, experiment = run_to_use(root, overrides)
    folds = finished_folds(experiment, run)
    if not folds:
        problem = Problem(str(root), "no finished fold", "at least one", "run uncseg cross-validate first")
        raise ProblemsFound("There is nothing to evaluate.", [problem])
    with ray_session(experiment.resources.ray_address) as own_ray:
        require_storage(experiment, own_ray)
        slots = plan_slots(experiment.resources, len(folds), connected_cluster(experiment.resources, own_ray))
        with counting() as progress:
            prepared = prepare(experiment, progress=progress)
        evaluate_folds(experiment, prepared, run, folds, slots, trust)
    return 0
