"""The run in MLflow that stands above others: a sweep's above its trials, a benchmark's above its trainings."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uncseg.config.experiment import Experiment
from uncseg.files import read_json, write_json
from uncseg.tracking.opening import artifact_location, open_store
from uncseg.tracking.push import KEY_TAG
from uncseg.tracking.spool import now_ms


def open_parent_run(
    manifest: Path, base: Experiment, name: str, tags: Mapping[str, str], params: Mapping[str, str]
) -> str:
    """Id of a run, made where MLflow has none.

    Args:
        manifest: JSON file in which the run is remembered.
        base: says which MLflow.
        name: of the run.
        tags, params: of a new one.
    """
    store = open_store(base.tracking_uri, base.tracking.experiment, artifact_location(base))
    record: dict[str, Any] = {"start_ms": now_ms(), "key": uuid.uuid4().hex}
    record |= read_json(manifest) if manifest.is_file() else {}
    record |= {"tracking_uri": base.tracking_uri, "experiment": base.tracking.experiment}
    write_json(manifest, record)  # the key before the run: a command killed between the two finds it
    if not record.get("run_id") or not store.has_run(record["run_id"]):
        found = store.find_run(KEY_TAG, record["key"])
        record["run_id"] = found or store.create_run(name, {**tags, KEY_TAG: record["key"]}, record["start_ms"])
        store.log_params(record["run_id"], params)
        write_json(manifest, record)
    return str(record["run_id"])
