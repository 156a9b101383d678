"""The run in MLflow that stands above others: a sweep's above its trials, a benchmark's above its trainings."""

from collections.abc import Mapping
from pathlib import Path

from uncseg.config.experiment import Experiment
from uncseg.tracking.destination import Destination
from uncseg.tracking.push import ensure_run
from uncseg.tracking.record import MlflowRecord


def open_parent_run(
    manifest: Path, base: Experiment, name: str, tags: Mapping[str, str], params: Mapping[str, str]
) -> str:
    """Return the id of a study's own run, which is created if MLflow does not have it.

    Args:
        manifest: JSON file that remembers the run.
        base: names the MLflow.
        name: of the run.
        tags, params: of a new run.
    """
    store, record = Destination.from_experiment(base).open(), MlflowRecord.read(manifest)
    record.tracking_uri, record.experiment = base.tracking_uri, base.tracking.experiment
    record.write(manifest)  # the key before the run: a command killed between the two finds it
    record.parent = ensure_run(store, record.parent, name, tags, None)
    if not record.parent.has_params:
        store.log_params(record.parent.run_id, params)
        record.parent.has_params = True
    record.write(manifest)
    return record.parent.run_id
