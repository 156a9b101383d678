"""Models in MLflow: a finished run as one model, a version of a registered one; until then each finished fold alone.

A run's model is an nnU-Net model folder with the weights of all folds, ``DESCRIPTION``,
a model card (README.md) and MLflow's own MLmodel, by which ``mlflow.pyfunc.load_model`` finds
:mod:`uncseg.tracking.pyfunc_model`: no Python object is pickled into it. Optimisers stay in the run's folder.

The alias ``candidate`` is the finished run's that ended last; others, ``champion`` for example, are people's own.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import pyfunc
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from uncseg.files import digest, file_states, write_json, write_text
from uncseg.layout import RunFolder
from uncseg.tracking.final_figures import describe
from uncseg.tracking.mlflow_internals import REGISTRY_REFUSALS, VERSIONS_TAG
from uncseg.tracking.model_card import describe_model, what_it_predicts, write_card
from uncseg.tracking.push import Histories, epoch_rows
from uncseg.tracking.record import MlflowRecord, RunEntry
from uncseg.tracking.spool import FoldHistory
from uncseg.tracking.store import CONTENT_TAG, PARENT_TAG, Store, storing

logger = logging.getLogger(__name__)
CANDIDATE = "candidate"
ENDED_TAG = "uncseg.ended_ms"
FINAL_CHECKPOINT = "checkpoint_final.pth"
FOLDER_FILES = ("plans.json", "dataset.json")
MODEL_KEY = "model"
LOADER = "uncseg.tracking.pyfunc_model"


def store_models(store: Store, record: MlflowRecord, run: RunFolder, histories: Histories, name: str) -> None:
    """Log and register the model of a run whose folds have all been evaluated; else log a model a finished fold.

    Trials of a sweep keep their weights to themselves. What is there already is not logged again.

    Args:
        record: changed as it goes.
        name: of the run.

    Raises:
        NotStored: naming what MLflow did not take.
    """
    if PARENT_TAG in record.tags:
        return
    folds = whole_folds(run, histories)
    if folds:
        with storing(f"the model of {name} ({len(folds)} folds)"):
            _store_run(store, record, run, histories, name, folds)
        return
    for fold, history in histories.items():
        if history.state == "finished" and history.epochs:
            with storing(f"the model of {name}, fold {fold}"):
                _store_fold(store, record.folds[fold], run, history, name)


def whole_folds(run: RunFolder, histories: Histories) -> list[int]:
    """All folds of a run's split, where each has been trained to its end and evaluated; else none."""
    split = _experiment(run).get("split") or {}
    folds, table = list(range(split.get("folds", 0))), run.tables / "per_case.parquet"
    trained = all(
        fold in histories and histories[fold].state == "finished" and run.final_checkpoint(fold).is_file()
        for fold in folds
    )
    if not folds or not trained or not table.is_file():
        return []
    return folds if set(pd.read_parquet(table, columns=["fold"])["fold"]) == set(folds) else []


def _plain(name: str) -> str:
    """As MLflow takes the name of a logged model."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _experiment(run: RunFolder) -> dict[str, Any]:
    content = yaml.safe_load(run.experiment.read_text(encoding="utf-8")) if run.experiment.is_file() else {}
    assert isinstance(content, dict)
    return content


def _store_fold(store: Store, entry: RunEntry, run: RunFolder, history: FoldHistory, name: str) -> None:
    checkpoint = run.final_checkpoint(history.fold)
    signature = digest(file_states([checkpoint])) if checkpoint.is_file() else None
    if signature is None or entry.files.get(FINAL_CHECKPOINT) == signature:
        return
    last = history.epochs[history.last_epoch]
    model = store.log_model(
        entry.run_id,
        name=f"{_plain(name)}-fold_{history.fold}",
        content=_content(run, [history.fold]),
        folders=lambda _model: _folders(run, [history.fold]),
        metrics={row.key: row.value for row in epoch_rows(last)},
        step=last.epoch,
        params={"run": name, "fold": str(history.fold)},
        time_ms=last.time_ms,
    )
    entry.model_id = model.model_id
    entry.files[FINAL_CHECKPOINT] = signature


def _store_run(
    store: Store, record: MlflowRecord, run: RunFolder, histories: Histories, name: str, folds: Sequence[int]
) -> None:
    parent, experiment = record.parent, _experiment(run)
    registered = (experiment.get("tracking") or {}).get("model") or name
    tables = sorted(run.tables.glob("[!.]*.parquet"))
    states = file_states([*map(run.final_checkpoint, folds), *tables, run.experiment])
    signature = digest([registered, states])
    if parent.files.get(MODEL_KEY) == signature:
        return
    about = describe_model(run, experiment, record.tags, folds)
    model = store.log_model(
        parent.run_id,
        name=_plain(name),
        content=_content(run, folds, what_it_predicts(about)),
        folders=partial(_run_folders, run, folds, about, registered),
        metrics=record.final.run,
        step=0,
        params={"run": name, "folds": ", ".join(map(str, folds))},
        time_ms=record.final_ms,
    )
    parent.model_id = model.model_id
    for fold in folds:  # a fold's page leads to the weights, which lie there and nowhere else
        entry = record.folds[fold]
        store.link_model(entry.run_id, model.model_id, histories[fold].last_epoch)
        store.delete_models(entry.run_id)
        entry.model_id = model.model_id
        entry.files.pop(FINAL_CHECKPOINT, None)
    try:
        ended = max(history.last_ms or 0 for history in histories.values())
        tags = _version_tags(record, name) | {ENDED_TAG: str(ended)}
        version = register(store, registered, model, tags, describe(run, store.run_page(parent.run_id)))
    except MlflowException as error:
        if error.error_code not in REGISTRY_REFUSALS:
            raise
        reason = str(error).splitlines()[0]
        logger.warning("The model of %s is stored, and not registered as %s: %s", name, registered, reason)
        return
    parent.version = f"{registered}/{version.version}"
    parent.files[MODEL_KEY] = signature


def register(
    store: Store, name: str, model: LoggedModel, tags: Mapping[str, str], description: str | None
) -> ModelVersion:
    """Make a logged model a version of a registered one; the same model again changes nothing.

    It becomes the ``candidate`` unless the run of another version ended later, in whichever order they come here.

    Args:
        name: of the registered model, made where there is none.
        tags: of the version; :data:`ENDED_TAG` says when its run ended.
        description: of the version.
    """
    client = store.client
    try:
        client.create_registered_model(name, description=f"Cross-validated runs of uncseg; {CANDIDATE}: the newest.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    content = model.tags[CONTENT_TAG]
    versions = client.search_model_versions(f"name = '{name}'")
    same = [one for one in versions if (one.run_id, one.tags.get(CONTENT_TAG)) == (model.source_run_id, content)]
    if same:
        version = max(same, key=_ended)
    else:
        version = _new_version(store, name, model, {**tags, CONTENT_TAG: content}, description)
        versions = client.search_model_versions(f"name = '{name}'")
    if int(max(versions, key=_ended).version) == int(version.version):
        client.set_registered_model_alias(name, CANDIDATE, str(version.version))
    return version


def _ended(version: ModelVersion) -> tuple[int, int]:
    """When a version's run ended, Unix time in ms (one from before the tag: when it was registered), and its number."""
    ended = version.tags.get(ENDED_TAG, "")
    return int(ended) if ended.isdigit() else version.creation_timestamp, int(version.version)


def _new_version(
    store: Store, name: str, model: LoggedModel, tags: Mapping[str, str], description: str | None
) -> ModelVersion:
    # a server finds the model by its id; a database asked directly would look for it at the process's own default
    served = store.tracking_uri.startswith("http")
    version = store.client.create_model_version(
        name,
        f"models:/{model.model_id}" if served else model.artifact_location,
        run_id=model.source_run_id,
        tags=dict(tags),
        description=description,
        model_id=model.model_id,
    )
    if not served:  # what a server notes by itself
        noted = [*json.loads(model.tags.get(VERSIONS_TAG, "[]")), {"name": name, "version": version.version}]
        store.client.set_logged_model_tags(model.model_id, {VERSIONS_TAG: json.dumps(noted)})
    return version


def _version_tags(record: MlflowRecord, name: str) -> dict[str, str]:
    wanted = ("dataset_digest", "split_digest", "git_commit")
    return {"run": name} | {tag: record.tags[tag] for tag in wanted if tag in record.tags}


def _content(run: RunFolder, folds: Sequence[int], *others: Any) -> str:
    """Digest of a model, by the checkpoints as they lie here, whole: to compare, none has to be written anew."""
    files = {name: run.model / name for name in FOLDER_FILES if (run.model / name).is_file()}
    files |= {f"fold_{fold}": run.final_checkpoint(fold) for fold in folds}
    digests = {}
    for name, file in files.items():
        with file.open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digest([digests, *others])


def _folders(run: RunFolder, folds: Sequence[int]) -> Generator[Path, None, None]:
    """The files of a model folder, a fold at a time: temporary space is needed for one."""
    from uncseg.method.checkpoints import write_weights

    with tempfile.TemporaryDirectory() as temporary:
        for name in FOLDER_FILES:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(run.model / name, Path(temporary, name))
        yield Path(temporary)
    for fold in folds:
        with tempfile.TemporaryDirectory() as temporary:
            write_weights(run.final_checkpoint(fold), Path(temporary, f"fold_{fold}", FINAL_CHECKPOINT))
            yield Path(temporary)


def _run_folders(
    run: RunFolder, folds: Sequence[int], about: Mapping[str, Any], registered: str, model: LoggedModel
) -> Generator[Path, None, None]:
    from uncseg.method.inference.model_folder import DESCRIPTION

    with tempfile.TemporaryDirectory() as temporary:
        write_json(Path(temporary, DESCRIPTION), about)
        write_text(Path(temporary, "README.md"), write_card(run, about, registered, CANDIDATE))
        flavours = Model(
            model.artifact_location, model.source_run_id, model_id=model.model_id, model_uuid=model.model_id
        )
        pyfunc.add_to_model(flavours, LOADER)
        flavours.save(str(Path(temporary, "MLmodel")))
        yield Path(temporary)
    yield from _folders(run, folds)
