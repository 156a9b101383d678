"""What a fold's network made of a case that it did not see, kept on the preprocessed grid for the other folds.

RUN/failures holds CASE.npz, a sample of the voxels that may be wrong, for failure networks CASE.b2nd, the logit of each
region's probability and the decisions, and CASE.json, the record of both.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch

from uncseg.dataset.finite import naming
from uncseg.dataset.prepared_cases import PreparedCases
from uncseg.evaluation.uncertainty import protocol_mask
from uncseg.files import digest, whole_file
from uncseg.kept_records import keep_record, kept_record
from uncseg.method.failures.failure_cases import FailureCase
from uncseg.method.failures.failure_model import on_fitting_device
from uncseg.method.failures.voxel_features import image_features, region_features
from uncseg.method.inference.decisions import Decisions
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import predict_grid
from uncseg.runs.fold_prediction import loaded_network, preprocessed_case
from uncseg.runs.fold_request import FoldRequest, RunRequest
from uncseg.runs.own_folds import checkpoint_digest
from uncseg.runs.run_data import known_digest
from uncseg.tasks.task import Task

VERSION = 1
"""To be raised when what is kept changes."""
SAMPLED_VOXELS = 4000
"""Voxels of a case from which calibrated p is fitted, and around which patches lie."""
THREADS = 1


@dataclass(frozen=True)
class Sample:
    """Voxels of a case near its reference or its prediction."""

    positions: np.ndarray
    """(N, 3)"""
    logits: np.ndarray
    """(R, N)"""
    decisions: np.ndarray
    """(R, N) bool"""
    wrong: np.ndarray
    """(R, N) bool"""
    near: np.ndarray
    """Whether the voxel is near this region's reference or prediction, (R, N) bool."""
    features: np.ndarray | None = None
    """Each voxel's features for trees or perceptrons, (R, N, F) float32; None where none are asked for."""


def keep_decisions(request: FoldRequest, case_id: str) -> str:
    """Predict a case with the fold that did not see it, keep what that says, and return a digest of all it depends on.

    What is there, and depends on the same, is not made again. The whole case is kept for a failure network alone; what
    calibrated p is fitted from is small.
    """
    torch.set_num_threads(request.cpus)
    evaluation = request.experiment.evaluation
    applied = [evaluation.tile_step, evaluation.mirroring]
    known = known_digest(request.run, case_id)
    source = digest([VERSION, request.fold, checkpoint_digest(request.run, request.fold), known, applied])
    record, failures = _file(request, case_id, "json"), request.experiment.failures
    kept = kept_record(record, source)
    if kept is None or not _suffices(kept, request, case_id):
        before = {} if kept is None else kept
        dense = failures.steps > 0 or _file(request, case_id, "b2nd").name in before.get("files", {})
        keep_record(
            record, source, _predict(request, case_id, dense, failures.from_voxels or before.get("features", False))
        )
    return source


def _suffices(kept: dict[str, Any], request: FoldRequest, case_id: str) -> bool:
    """Return whether what is kept of a case is all that the settings need."""
    failures, whole = request.experiment.failures, _file(request, case_id, "b2nd").name in kept["files"]
    return (whole or not failures.steps) and (kept.get("features", False) or not failures.from_voxels)


def is_kept(request: FoldRequest | RunRequest, case_id: str, source: str) -> bool:
    """Return whether what is kept of a case is whole, and was made from ``source`` (:func:`keep_decisions`)."""
    kept = kept_record(_file(request, case_id, "json"), source)
    return kept is not None and _file(request, case_id, "b2nd").name in kept["files"]


def _file(request: FoldRequest | RunRequest, case_id: str, ending: str) -> Path:
    return request.run.failures / f"{case_id}.{ending}"


def _predict(request: FoldRequest, case_id: str, whole: bool, with_features: bool) -> dict[str, Any]:
    with naming(case_id):
        data, _ = preprocessed_case(request, case_id)
        grid = predict_grid(loaded_network(request), data)
    model = ModelFolder(request.run.model, request.experiment.plan.configuration)
    decisions = Decisions.of_grid(grid, model)
    reference = reference_of(request, case_id)
    dense, sampled = _file(request, case_id, "b2nd"), _file(request, case_id, "npz")
    sample = _sample(decisions, reference)
    if with_features:
        sample = replace(sample, features=_features(data, decisions, sample.positions))
    with whole_file(sampled) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{name: values for name, values in vars(sample).items() if values is not None})
    if not whole:
        dense.unlink(missing_ok=True)  # of an earlier network
        return {"files": [sampled.name], "features": with_features}
    kept = np.concatenate([decisions.logits, decisions.chosen]).astype(np.float16)
    with whole_file(dense) as temporary:
        # blosc2 itself would put another file in the place of the one that is held
        temporary.write_bytes(blosc2.asarray(kept, cparams={"nthreads": THREADS}).to_cframe())
    return {"files": [dense.name, sampled.name], "features": with_features}


def _features(data: np.ndarray, decisions: Decisions, positions: np.ndarray) -> np.ndarray:
    """Return the features of voxels, (R, N, F)."""
    at, logits, chosen = (slice(None), *positions.T), decisions.logits, decisions.chosen

    def on(device: torch.device) -> np.ndarray:
        shared = image_features(data, device)[at]
        own = (region_features(logits, chosen, region, device)[at] for region in range(len(chosen)))
        return np.stack([torch.cat([values, shared]).T.cpu().numpy() for values in own])

    return on_fitting_device(on)


def reference_of(request: FoldRequest | RunRequest, case_id: str) -> np.ndarray:
    """Return each region of a case's reference on the preprocessed grid, (R, D, H, W) bool."""
    _, labels, _, _ = _prepared(request, case_id).load_case(case_id)
    return _regions(np.asarray(labels[:])[0], request.experiment.dataset.task)


def _regions(labels: np.ndarray, task: Task) -> np.ndarray:
    return np.stack([np.isin(labels, numbers) for numbers in task.numbers.values()])


def _prepared(request: FoldRequest | RunRequest, case_id: str) -> PreparedCases:
    model = ModelFolder(request.run.model, request.experiment.plan.configuration)
    return PreparedCases(str(request.prepared.dataset / model.configuration_manager.data_identifier), [case_id])


def _sample(decisions: Decisions, reference: np.ndarray) -> Sample:
    """Draw voxels near reference or prediction, always the same ones."""
    pairs = zip(reference, decisions.chosen, strict=True)
    near = np.stack([protocol_mask(expected, chosen, "union") for expected, chosen in pairs])
    where = np.flatnonzero(near.any(0))
    if not len(where):  # nothing is there, and nothing was found
        where = np.arange(near[0].size)
    drawn = np.sort(np.random.default_rng(0).choice(where, min(len(where), SAMPLED_VOXELS), replace=False))
    flat = [
        values.reshape(len(values), -1)[:, drawn] for values in (decisions.logits, decisions.chosen, reference, near)
    ]
    positions = np.stack(np.unravel_index(drawn, near.shape[1:]), axis=1)
    return Sample(positions.astype(np.int32), flat[0], flat[1], flat[1] != flat[2], flat[3])


def read_sample(request: FoldRequest | RunRequest, case_id: str) -> Sample:
    """Read the sampled voxels of a case."""
    with np.load(_file(request, case_id, "npz")) as arrays:
        return Sample(**{name: arrays[name] for name in Sample.__dataclass_fields__ if name in arrays.files})


@dataclass(frozen=True)
class _Part:
    """Channels of an array in a file, as values of a kind."""

    array: Any
    first: int
    count: int
    kind: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *self.array.shape[1:])

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(self.array[(slice(self.first, self.first + self.count), *box[1:])]).astype(self.kind)


@dataclass(frozen=True)
class _Reference:
    """Regions of labels in a file."""

    labels: Any
    task: Task

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        return _regions(np.asarray(self.labels[(slice(0, 1), *box[1:])])[0], self.task)


def open_case(request: FoldRequest | RunRequest, case_id: str) -> FailureCase:
    """Open a case for the training of a failure network; patches are read from the files."""
    images, labels, _, _ = _prepared(request, case_id).load_case(case_id)
    kept = blosc2.open(str(_file(request, case_id, "b2nd")), mode="r")
    regions = len(request.experiment.dataset.task.regions)
    logits, decisions = _Part(kept, 0, regions, np.float32), _Part(kept, regions, regions, bool)
    reference = _Reference(labels, request.experiment.dataset.task)
    return FailureCase(images, logits, decisions, reference, read_sample(request, case_id).positions)
