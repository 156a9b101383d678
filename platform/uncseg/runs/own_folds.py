"""Whether the folder of a fold holds the network that was trained there: folders and checkpoints may be exchanged."""

import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from uncseg.errors import Problem
from uncseg.files import file_digest, read_json
from uncseg.layout import DONE, FINAL_CHECKPOINT, RunFolder
from uncseg.method.settings import model_digest
from uncseg.tracking.lost_epochs import AGAIN

TITLE = "The folds of a run were exchanged or changed."
MODEL_FILES = "restore these files from a copy"
ADVICE = "put each fold's own files back, or move the fold's folder away: the same command trains it again"


def done_record(fold: int, epochs: int, checkpoint: Path) -> dict[str, Any]:
    """Return the content of a finished fold's done.json: which fold it is, and its final checkpoint by content."""
    status = checkpoint.stat()
    described = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_digest(checkpoint)}
    return {"fold": fold, "epochs": epochs, "checkpoint": described, "model": _model_digest(checkpoint.parents[1])}


def _model_digest(folder: Path) -> str:
    plans, dataset_json = (read_json(folder / name, MODEL_FILES) for name in ("plans.json", "dataset.json"))
    return model_digest(plans, dataset_json)


def foreign_folds(run: RunFolder, folds: Iterable[int], members: int = 1) -> list[Problem]:
    """Return a problem for each finished fold whose folder holds another fold, or another checkpoint than its own.

    A checkpoint whose size and time are as they were is not read. One that is damaged is not foreign: whoever loads it
    names it.

    Raises:
        DamagedFile: done.json of a fold cannot be read.
    """
    models, folds = [run.member(number).model for number in range(members)], list(folds)
    return [problem for model in models for problem in foreign_folds_in(model, folds)]


def foreign_folds_in(model: Path, folds: Iterable[int]) -> list[Problem]:
    """Return the same as :func:`foreign_folds` for a model folder, as far as there is a done.json in its folds."""
    return [problem for fold in folds for problem in _problems(model, fold)]


def unrecorded_folds(run: RunFolder, folds: Iterable[int], members: int) -> list[Problem]:
    """Return a problem for each fold that has a final checkpoint but no done.json."""
    expected, advice = f"the record of the training that ended, beside {FINAL_CHECKPOINT}", AGAIN.format("give ")
    places = [(run.member(number), fold) for number in range(members) for fold in folds]
    return [
        Problem(str(member.fold(fold) / DONE), "nothing", expected, advice)
        for member, fold in places
        if member.final_checkpoint(fold).is_file() and not (member.fold(fold) / DONE).exists()
    ]


def _problems(model: Path, fold: int) -> list[Problem]:
    folder = model / f"fold_{fold}"
    checkpoint = folder / FINAL_CHECKPOINT
    if not ((folder / DONE).is_file() and checkpoint.is_file()):
        return []
    record = read_json(folder / DONE, AGAIN.format("delete it and give "), keys=("fold", "epochs"))
    if record["fold"] != fold:
        return [Problem(str(folder), f"the training of fold {record['fold']}", f"that of fold {fold}", ADVICE)]
    return _other_model(model, record) + _other_checkpoint(checkpoint, record.get("checkpoint"))


def _other_model(model: Path, record: dict[str, Any]) -> list[Problem]:
    written, found = str(record.get("model", "")), _model_digest(model)
    if written in ("", found):
        return []
    expected = f"those with which fold {record['fold']} was trained (digest {written[:12]})"
    where = f"{model}: plans.json, dataset.json"
    return [Problem(where, f"others (digest {found[:12]})", expected, MODEL_FILES)]


def _other_checkpoint(checkpoint: Path, described: Any) -> list[Problem]:
    if not isinstance(described, dict):
        return []
    status = checkpoint.stat()
    if (status.st_size, status.st_mtime_ns) == (described.get("bytes"), described.get("mtime_ns")):
        return []
    if (found := file_digest(checkpoint)) == described.get("sha256") or not _is_whole(checkpoint):
        return []
    expected = f"the one that the training of this fold wrote (SHA-256 {str(described.get('sha256'))[:12]})"
    return [Problem(str(checkpoint), f"another checkpoint (SHA-256 {found[:12]})", expected, ADVICE)]


def checkpoint_digest(run: RunFolder, fold: int) -> str:
    """Return the SHA-256 (hex) of a fold's final checkpoint, which a copy of it has too; it is read where it must be.

    Raises:
        OSError: there is no such checkpoint.
    """
    file = run.final_checkpoint(fold)
    status, record = file.stat(), run.fold(fold) / DONE
    described = read_json(record).get("checkpoint") if record.is_file() else None
    state = status.st_size, status.st_mtime_ns
    if isinstance(described, dict) and (described.get("bytes"), described.get("mtime_ns")) == state:
        return str(described["sha256"])
    return _digest_of(file, *state)


@lru_cache(maxsize=64)
def _digest_of(file: Path, _bytes: int, _time_ns: int) -> str:
    return file_digest(file)


def _is_whole(checkpoint: Path) -> bool:
    """Return whether a file is an archive as torch writes it, in which no bit has changed."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError, NotImplementedError):
        return False
