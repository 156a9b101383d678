"""Models in MLflow: a finished run as one model, registered as a version; until then each finished fold as a model.

A run's model is an nnU-Net model folder with the weights of all folds, its description (uncseg.json), a model card
(README.md) and MLflow's own MLmodel, by which ``mlflow.pyfunc.load_model`` finds :mod:`uncseg.tracking.pyfunc_model`:
no Python object is pickled into it. The states of the optimisers stay in the run's folder.

The alias ``candidate`` names the version whose run ended last; people set other aliases, for example ``champion``.
"""

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import pyfunc
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from uncseg.files import digest, file_digest, file_states, json_text, write_json, write_text
from uncseg.layout import FAILURES, FINAL_CHECKPOINT, RunFolder
from uncseg.ownership import holds
from uncseg.table_files import read_table
from uncseg.tracking.final_figures import describe
from uncseg.tracking.mlflow_internals import REGISTRY_REFUSALS, VERSIONS_TAG
from uncseg.tracking.model_card import describe_model, model_identity, write_card
from uncseg.tracking.push import Histories, SyncRound, epoch_rows, final_rows
from uncseg.tracking.reasons import whole_reason
from uncseg.tracking.record import RunEntry
from uncseg.tracking.run_settings import read_settings
from uncseg.tracking.spool import FoldHistory
from uncseg.tracking.store import CONTENT_TAG, PARENT_TAG, Store, storing

logger = logging.getLogger(__name__)
CANDIDATE = "candidate"
ENDED_TAG = "uncseg.ended_ms"
FOLDER_FILES = ("plans.json", "dataset.json")
MODEL_KEY = "model"
VERSION_TAGS = ("dataset_digest", "split_digest", "git_commit")
LOADER = "uncseg.tracking.pyfunc_model"


def store_models(work: SyncRound) -> None:
    """Log and register the model of a run whose folds are all evaluated; else log one model per finished fold.

    The weights of a study's runs are not stored. What MLflow holds already is not logged again.

    Raises:
        NotStored: naming what MLflow did not take.
    """
    if PARENT_TAG in work.record.tags:
        return
    name, folds = work.description.name, whole_folds(work.run, work.histories)
    if folds:
        with storing(f"the model of {name} ({len(folds)} folds)"):
            _store_run(work, folds)
        return
    for entry, history in work.folds:
        if history.state == "finished" and history.epochs:
            with storing(f"the model of {name}, fold {history.fold}"):
                _store_fold(work, entry, history)


def whole_folds(run: RunFolder, histories: Histories) -> list[int]:
    """Return all folds of a run's split if each has been trained to its end and evaluated; else none."""
    split = read_settings(run).get("split") or {}
    folds, table = list(range(split.get("folds", 0))), read_table(run.tables, "per_case", ["fold"])
    trained = all(
        fold in histories and histories[fold].state == "finished" and holds(run.root, run.final_checkpoint(fold))
        for fold in folds
    )
    if not folds or not trained or table is None:
        return []
    return folds if set(table["fold"]) == set(folds) else []


def _model_name(run_name: str) -> str:
    """Return the name with the characters that MLflow accepts in the name of a logged model."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", run_name)


def _store_fold(work: SyncRound, entry: RunEntry, history: FoldHistory) -> None:
    run, fold, name = work.run, history.fold, work.description.name
    checkpoint = run.final_checkpoint(fold)
    files = [checkpoint, *_learnt(run, [fold]).values()]
    signature = digest(file_states(files)) if holds(run.root, checkpoint) else None
    if signature is None or entry.files.get(FINAL_CHECKPOINT) == signature:
        return
    last = history.epochs[history.last_epoch]
    model = work.store.log_model(
        entry.run_id,
        name=f"{_model_name(name)}-fold_{fold}",
        content=_content(run, [fold]),
        folders=partial(_folders, run, [fold], None, ""),
        metrics=epoch_rows(last),
        step=last.epoch,
        params={"run": name, "fold": str(fold)},
    )
    entry.model_id = model.model_id
    entry.files[FINAL_CHECKPOINT] = signature


def _store_run(work: SyncRound, folds: Sequence[int]) -> None:
    run, parent, experiment = work.run, work.record.parent, read_settings(work.run)
    name, tags = work.description.name, work.record.tags
    registered = (experiment.get("tracking") or {}).get("model") or name
    tables = sorted(run.tables.glob("[!.]*.parquet"))
    files = [*map(run.final_checkpoint, folds), *_learnt(run, folds).values(), *tables, run.experiment]
    signature = digest([registered, file_states(files)])
    if parent.files.get(MODEL_KEY) == signature:
        return
    about = describe_model(run, experiment, tags, folds)
    model = _log_run_model(work, folds, about, registered)
    try:
        description = describe(run, work.store.run_page(parent.run_id))
        kept = {tag: tags[tag] for tag in VERSION_TAGS if tag in tags}
        ended = max(history.last_ms or 0 for history in work.histories.values())
        version_tags = {"run": name, ENDED_TAG: str(ended)} | kept
        version = register(work.store, registered, model, version_tags, description)
    except MlflowException as error:
        if error.error_code not in REGISTRY_REFUSALS:
            raise
        logger.warning("The model of %s is stored, and not registered as %s: %s", name, registered, whole_reason(error))
        return
    parent.version = f"{registered}/{version.version}"
    parent.files[MODEL_KEY] = signature


def _log_run_model(work: SyncRound, folds: Sequence[int], about: Mapping[str, Any], registered: str) -> LoggedModel:
    """Log the model of all folds on the parent, and show it with each fold in place of the fold's own model."""
    store, run, record, name = work.store, work.run, work.record, work.description.name
    model = store.log_model(
        record.parent.run_id,
        name=_model_name(name),
        content=_content(run, folds, model_identity(about)),
        folders=partial(_folders, run, folds, about, registered),
        metrics=final_rows(record.parent),
        step=0,
        params={"run": name, "folds": ", ".join(map(str, folds))},
    )
    record.parent.model_id = model.model_id
    for fold in folds:
        entry = record.folds[fold]
        store.link_model(entry.run_id, model.model_id, work.histories[fold].last_epoch)
        store.delete_models(entry.run_id)
        entry.model_id = model.model_id
        entry.files.pop(FINAL_CHECKPOINT, None)
    return model


def register(
    store: Store, name: str, model: LoggedModel, tags: Mapping[str, str], description: str | None
) -> ModelVersion:
    """Make a logged model a version of a registered one; registering the same model again changes nothing.

    The version becomes the ``candidate`` unless the run of another version ended later, in whichever order they are
    registered. The registered model is created if absent; :data:`ENDED_TAG` among the version's tags says when its run
    ended.
    """
    client = store.client
    try:
        client.create_registered_model(name, description=f"Cross-validated runs of uncseg; {CANDIDATE}: the newest.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    key = (model.source_run_id, model.tags[CONTENT_TAG])
    versions = list(client.search_model_versions(f"name = '{name}'"))
    same = [version for version in versions if (version.run_id, version.tags.get(CONTENT_TAG)) == key]
    if not same:
        same = [_new_version(store, name, model, {**tags, CONTENT_TAG: key[1]}, description)]
        versions = list(client.search_model_versions(f"name = '{name}'"))
    version = max(same, key=_ended)
    if int(max(versions, key=_ended).version) == int(version.version):
        client.set_registered_model_alias(name, CANDIDATE, str(version.version))
    return version


def _ended(version: ModelVersion) -> tuple[int, int]:
    """Return when a version's run ended, Unix time in ms (without the tag: when it was registered), and its number."""
    ended = version.tags.get(ENDED_TAG, "")
    return int(ended) if ended.isdigit() else version.creation_timestamp, int(version.version)


def _new_version(
    store: Store, name: str, model: LoggedModel, tags: Mapping[str, str], description: str | None
) -> ModelVersion:
    # A server finds the model by its id; a database opened directly would look for it at the process's own default.
    served = store.tracking_uri.startswith("http")
    version = store.client.create_model_version(
        name,
        f"models:/{model.model_id}" if served else model.artifact_location,
        run_id=model.source_run_id,
        tags=dict(tags),
        description=description,
        model_id=model.model_id,
    )
    if not served:  # a server sets this tag itself
        known = [*json.loads(model.tags.get(VERSIONS_TAG, "[]")), {"name": name, "version": version.version}]
        store.client.set_logged_model_tags(model.model_id, {VERSIONS_TAG: json_text(known)})
    return version


def _content(run: RunFolder, folds: Sequence[int], *others: Any) -> str:
    """Return the digest of a model, by the whole checkpoints as they lie here: comparing needs no new file."""
    files = {name: run.model / name for name in FOLDER_FILES if holds(run.root, run.model / name)}
    files |= {f"fold_{fold}": run.final_checkpoint(fold) for fold in folds} | _learnt(run, folds)
    return digest([{name: file_digest(file) for name, file in files.items()}, *others])


def _learnt(run: RunFolder, folds: Sequence[int]) -> dict[str, Path]:
    """Return what the folds have learnt from each other's failures, by its place in the model."""
    files = {f"fold_{fold}/{FAILURES}": run.learnt_failures(fold) for fold in folds}
    return {name: file for name, file in files.items() if holds(run.root, file)}


def _folders(
    run: RunFolder, folds: Sequence[int], about: Mapping[str, Any] | None, registered: str, model: LoggedModel
) -> Generator[Path, None, None]:
    """Yield temporary folders with the files of a model folder, one per fold: only one takes space at a time.

    The first holds what the folds share; for the model of a run, ``about`` describes it, the rest is for its card.
    """
    from uncseg.method.checkpoints import write_weights
    from uncseg.method.inference.model_folder import DESCRIPTION

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in FOLDER_FILES:
            if holds(run.root, run.model / name):
                shutil.copyfile(run.model / name, folder / name)
        if about is not None:
            write_json(folder / DESCRIPTION, about)
            write_text(folder / "README.md", write_card(run, about, registered, CANDIDATE))
            run_id, model_id = model.source_run_id, model.model_id
            flavours = Model(model.artifact_location, run_id, model_id=model_id, model_uuid=model_id)
            pyfunc.add_to_model(flavours, LOADER)
            flavours.save(str(folder / "MLmodel"))
        yield folder
    for fold in folds:
        with tempfile.TemporaryDirectory() as temporary:
            write_weights(run.final_checkpoint(fold), Path(temporary, f"fold_{fold}", FINAL_CHECKPOINT))
            for name, file in _learnt(run, [fold]).items():
                shutil.copyfile(file, Path(temporary, name))
            yield Path(temporary)
