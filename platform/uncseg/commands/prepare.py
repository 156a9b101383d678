"""``uncseg prepare``: cases checked, planned, preprocessed and split."""

from uncseg.cluster.session import ray_session
from uncseg.config.experiment import Experiment
from uncseg.console import counting
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.layout import PreparedFolder
from uncseg.runs.preflight import require_storage
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_plan import print_cases


def prepare_dataset(experiment: Experiment) -> PreparedFolder:
    """Check, plan, preprocess and split an experiment's cases, one Ray task per case."""
    write_missing_phantoms(experiment.dataset)
    with ray_session(experiment.resources.ray_address, dashboard=False) as own_ray, counting() as progress:
        require_storage(experiment, own_ray)
        prepared = prepare_cases(experiment.resolved(), progress=progress)
    print_cases(experiment, prepared)
    return prepared
