"""Checkpoint files: written whole or not at all, and read without running code that a stranger may have put in.

PyTorch reads a file whose bits have changed since it was written: what it reads then is noticed here, by the checksums
that the file holds and by weights that are not finite.

Beside nnU-Net's checkpoint lies a resume file with what nnU-Net does not keep: the error memories, the random states
and the loaders' positions. So a model that is passed on does not carry the error memory along. While a fold trains, the
checkpoint before the latest is kept too: a damaged file then costs one checkpoint interval.
"""

import pickle
import random
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.errors import Problem, ProblemsFound, listed
from uncseg.files import whole_file
from uncseg.layout import FINAL_CHECKPOINT
from uncseg.method.nnunet_internals import array_constructors

BEST, FINAL = "checkpoint_best.pth", FINAL_CHECKPOINT
LATEST, PREVIOUS = "checkpoint_latest.pth", "checkpoint_previous.pth"
RESUME_PREFIX = "resume_epoch_"
MODEL_KEYS = ("network_weights", "trainer_name", "inference_allowed_mirroring_axes")
TRAINING_KEYS = (*MODEL_KEYS, "optimizer_state", "current_epoch", "logging")
WEIGHTS_KEYS = (*MODEL_KEYS, "init_args", "current_epoch")
RESUME_KEYS = ("epoch", "memories", "random", "next_batch")

TITLE = "A checkpoint cannot be loaded."
TRUNCATED = "a truncated file, or one of another kind"
AGAIN = "copy it again; where there is no copy, move it away to start over"

_NUMBERS = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "bool")]
_ALLOWED: list[Any] = [np.dtype, np.ndarray, *_NUMBERS, *array_constructors()]
"""What nnU-Net puts into a checkpoint beside tensors and plain values: NumPy's arrays and numbers."""


class DamagedCheckpoint(ProblemsFound):
    """A checkpoint is truncated or altered, or is no checkpoint at all; another one may be whole."""


def load_torch_file(path: Path, keys: Sequence[str], trust: bool = False) -> dict:
    """Read a file that ``torch.save`` wrote, with at least these keys: tensors, plain values and NumPy's numbers.

    With ``trust`` the file may run code of its own (full unpickling).

    Raises:
        ProblemsFound: the file cannot be opened, or holds objects that only code could build, without ``trust``.
        DamagedCheckpoint: the file is truncated, altered or of another kind, or its weights are not finite.
    """
    _require_unaltered(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=not trust)
    except OSError as error:
        raise _problem(path, error.strerror or str(error), "give another file") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever unpickling damaged bytes raises
        raise _refused(path, error) from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        found, advice = f"a file without {', '.join(missing)}", "give a checkpoint that this kind of training wrote"
        raise _problem(path, found, advice, DamagedCheckpoint)
    assert isinstance(content, dict)
    if wrong := _not_finite(content.get("network_weights")):
        advice = "copy it again, or train the fold again: its training diverged, or the file was altered"
        raise _problem(path, f"{wrong} with values that are not finite", advice, DamagedCheckpoint)
    return content


def require_whole(files: Iterable[Path]) -> None:
    """Refuse checkpoints that are truncated or altered, before anything is done with the others.

    Raises:
        DamagedCheckpoint: naming each of them.
        ProblemsFound: a file cannot be opened.
    """
    problems = []
    for path in files:
        try:
            _require_unaltered(path)
        except DamagedCheckpoint as error:
            problems += error.problems
    if problems:
        raise DamagedCheckpoint(TITLE, problems, exit_code=1)


def init_args_of(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint's trainer was made with, plans and dataset.json among it, without reading the weights.

    It is empty where that cannot be told: whoever loads the checkpoint finds out why.
    """
    try:
        with torch.serialization.safe_globals([*_ALLOWED, torch.device]):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        arguments = content.get("init_args")
    except Exception:  # of an old format, of a stranger's objects, or damaged
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _require_unaltered(path: Path) -> None:
    """Compare each part of a file with its checksum; files that PyTorch wrote before its version 1.6 have none.

    Raises:
        ProblemsFound: the file cannot be opened.
        DamagedCheckpoint: a checksum differs, or the list of parts is damaged.
    """
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                stream.seek(0)
                if stream.read(2) in (b"", b"PK"):  # the list of parts is at the end
                    raise _problem(path, TRUNCATED, AGAIN, DamagedCheckpoint)
                return  # whatever reads it finds out
            with zipfile.ZipFile(stream) as parts:
                part = parts.testzip()
    except OSError as error:
        raise _problem(path, error.strerror or str(error), "give another file") from error
    except DamagedCheckpoint:
        raise
    except Exception as error:  # of zlib, or an encryption or a version that altered bytes claim
        part = str(error)
    if part is not None:
        raise _problem(path, f"a file altered since it was written ({part})", AGAIN, DamagedCheckpoint)


def _not_finite(weights: Any) -> str:
    """Return the first name of a floating tensor with a value that is not finite, and how many more; else nothing."""
    if not isinstance(weights, dict):
        return ""
    floating = {name: values for name, values in weights.items() if isinstance(values, torch.Tensor)}
    return listed((str(name) for name, values in floating.items() if not bool(torch.isfinite(values).all())), most=1)


def _refused(path: Path, error: Exception) -> ProblemsFound:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and "unsupported global" in text.lower():
        name = text.partition("GLOBAL ")[2].split()[:1] or ["code"]
        found = f"{name[0]}, which only code of the file's own could build"
        return _problem(path, found, "add --trust if you know where the file comes from")
    return _problem(path, TRUNCATED, AGAIN, DamagedCheckpoint)


def _problem(path: Path, found: str, advice: str, kind: type[ProblemsFound] = ProblemsFound) -> ProblemsFound:
    problem = Problem(str(path), found, "a whole checkpoint of tensors and plain values", advice)
    return kind(TITLE, [problem], exit_code=1)


def write_weights(checkpoint: Path, target: Path) -> None:
    """Write the part of a checkpoint that our commands and nnU-Net's need to predict: about half of it.

    The optimiser's momenta and the training's curves are left out. Raises as :func:`load_torch_file`.
    """
    content = load_torch_file(checkpoint, WEIGHTS_KEYS)
    # torch writes a file's name into it: given one, the same weights would differ in every process
    with whole_file(target) as temporary, temporary.open("wb") as stream:
        torch.save({key: content[key] for key in WEIGHTS_KEYS}, stream)


def keep_best_and_final(folder: Path, epochs: int) -> None:
    """Remove what only a training needs from a fold that has trained all epochs; the final resume file stays."""
    for name in (LATEST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
    remove_old_resume_files(resume_file(folder / FINAL, epochs))


def remove_checkpoints(folder: Path) -> int:
    """Remove all checkpoints and resume files of a fold, not its logs; return the number of bytes freed."""
    files = [file for pattern in ("checkpoint_*", f"{RESUME_PREFIX}*") for file in folder.glob(pattern)]
    freed = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink(missing_ok=True)
    return freed


def resume_file(checkpoint: Path, epochs: int) -> Path:
    """Return the resume file beside a checkpoint that was written after ``epochs`` epochs."""
    return checkpoint.with_name(f"{RESUME_PREFIX}{epochs:04d}.pt")


def save_resume_file(path: Path, content: dict[str, Any]) -> None:
    """Write a resume file (:data:`RESUME_KEYS`), whole or not at all."""
    assert set(content) == set(RESUME_KEYS)
    with whole_file(path) as temporary:
        torch.save(content, temporary)


def load_resume_file(path: Path) -> dict:
    """Read a resume file; raises as :func:`load_torch_file`."""
    return load_torch_file(path, RESUME_KEYS)


def remove_old_resume_files(newest: Path) -> None:
    """Keep the resume files of the checkpoint just written and, if there is one, of the previous; remove the others."""
    files = set(newest.parent.glob(f"{RESUME_PREFIX}*.pt"))
    older = sorted(file for file in files if file < newest)
    keep = {newest, *(older[-1:] if newest.with_name(PREVIOUS).is_file() else [])}
    for file in files - keep:
        file.unlink(missing_ok=True)


def random_states() -> dict[str, Any]:
    """Return the random states of this process as tensors and plain values."""
    name, state, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(state).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Inverse of :func:`random_states`; states of GPUs that are not here are left out."""
    random.setstate(states["python"])
    name, state, *rest = states["numpy"]
    np.random.set_state((name, state.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
