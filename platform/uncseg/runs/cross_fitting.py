"""Cross-fitted failures: after the folds, each learns from failures of the other folds' networks on cases new to them.

A case is predicted by the one fold that did not see it. What fold k learns from are the cases of the other folds and
their references; no reference of fold k's own cases is read for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.cluster.tasks import map_cases_on_workers
from uncseg.config.failures import Failures
from uncseg.dataset.splits import read_splits
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest
from uncseg.kept_records import keep_record, kept_record
from uncseg.layout import FAILURES, FAILURES_RECORD
from uncseg.method.failures.calibration import Calibration, fit_calibration
from uncseg.method.failures.failure_model import FailureModel, Grid, fitting_device
from uncseg.method.failures.failure_training import FailureTraining
from uncseg.method.failures.failure_trees import fit_trees
from uncseg.method.failures.perceptron import Perceptron, fit_perceptron
from uncseg.method.failures.voxel_features import without_images
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.runs.failure_data import keep_decisions, open_case, read_sample
from uncseg.runs.fold_request import FoldRequest, RunRequest

VERSION = 2
"""To be raised when the same settings make something else be learnt."""
LATEST = "failures_latest.pth"
"""Checkpoint of a training that goes on."""
SEED_OF_FOLD = 1000
MISSING = "The run is evaluated, but for this."

Progress = Callable[[str, int, int], None]


def learn_failures(
    request: RunRequest, folds: Sequence[int], progress: Progress, wanted: Sequence[int] | None = None
) -> list[Problem]:
    """Let each fold learn from the failures of the others, once all are trained; what is there is kept.

    A case that cannot be predicted is left out.

    Args:
        folds: those whose training has ended. While others are missing, nothing is learnt: it would have to be learnt
            again, and commands that train folds side by side would differ in what they know.
        progress: called with (what, done, total).
        wanted: all folds that there will be, two at least; None: those of the split.

    Returns:
        A problem for each case that could not be predicted, and each fold that could not learn.
    """
    splits = read_splits(request.prepared.splits)
    if sorted(folds) != sorted(range(len(splits)) if wanted is None else wanted):
        return []
    sources, problems = keep_all_decisions(request, folds, progress)
    fits = []
    for fold in folds:
        others = (case for other in folds if other != fold for case in sorted(splits[other]["val"]))
        of = {case: sources[case] for case in others if case in sources}
        fits.append((f"failures of fold {fold}", learn_fold, (request, fold, of)))
    slots, show = request.slots, lambda *n: progress("folds that learnt from failures", *n)
    _, failed = map_cases_on_workers(fits, slots, show, "calibrated p and what it does not know")
    return problems + failed


def keep_all_decisions(
    request: RunRequest, folds: Sequence[int], progress: Progress
) -> tuple[dict[str, str], list[Problem]]:
    """Keep what each fold's network makes of its own cases, which it did not see.

    Returns:
        By case the digest of what is kept, and a problem for each case that could not be predicted.
    """
    splits = read_splits(request.prepared.splits)
    calls = [
        (case, keep_decisions, (request.fold(fold), case)) for fold in folds for case in sorted(splits[fold]["val"])
    ]
    return map_cases_on_workers(calls, request.slots, lambda *n: progress("predicted cases", *n))


def learn_fold(request: RunRequest, fold: int, sources: Mapping[str, str]) -> dict[str, Any]:
    """Let a fold learn from the failures of the others, unless that is done.

    What was learnt from the same cases stays where the experiment asks for no more than calibrated p.

    Args:
        fold: none of its cases is used.
        sources: the cases of the other folds, each with the digest of what is kept of it.

    Returns:
        The record: the calibrations, and the loss of each step.
    """
    settings, folder = request.experiment.failures, request.run.fold(fold)
    torch.set_num_threads(request.slots.cpus_per_process)
    known = digest([VERSION, fold, dict(sorted(sources.items()))])
    what = settings.model_dump(mode="json", exclude={"checkpoint_every"})
    kept = kept_record(folder / FAILURES_RECORD, known)
    if kept is not None and (not settings.learns or {**Failures.older} | kept["settings"] == what):
        return kept
    for name in (FAILURES_RECORD, FAILURES):  # what is out of date judges nothing
        (folder / name).unlink(missing_ok=True)
    learnt = _learn(request, fold, sorted(sources), digest([known, what]))
    record = keep_record(folder / FAILURES_RECORD, known, learnt | {"settings": what})
    (folder / LATEST).unlink(missing_ok=True)
    return record


def _learn(request: RunRequest, fold: int, cases: Sequence[str], source: str) -> dict[str, Any]:
    folder = request.run.fold(fold)
    if not cases:
        problem = Problem(f"fold {fold}", "no case of another fold", "some that were predicted", "repair these first")
        raise ProblemsFound("There is nothing to learn from.", [problem], exit_code=1)
    model, losses = learn_from(request, fold, cases, folder / LATEST, source)
    model.save(folder / FAILURES)
    return {
        "files": [FAILURES],
        "fold": fold,
        "calibrations": [vars(calibration) for calibration in model.calibrations],
        "losses": losses,
    }


def learn_from(
    request: RunRequest, fold: int, cases: Sequence[str], checkpoint: Path, source: str
) -> tuple[FailureModel, list[float]]:
    """Return what a fold learns from cases of the others, and the loss of each step of its network.

    Args:
        cases: those whose references are read.
        checkpoint: from which a network's training goes on.
        source: digest of all that it is trained from; a checkpoint of another one is not used.
    """
    settings = request.experiment.failures
    model = FailureModel(fit_calibrations(request, cases), settings, grid_of(request))
    if not settings.steps:
        return learn_from_voxels(request, fold, cases, model), []
    seed = settings.seed * SEED_OF_FOLD + fold
    training = FailureTraining(model.build(seed).to(fitting_device()), settings, seed, source)
    training.run([open_case(request, case) for case in cases], checkpoint)
    return FailureModel(model.calibrations, settings, model.grid, training.network), training.losses


def learn_from_voxels(
    request: FoldRequest | RunRequest, fold: int, cases: Sequence[str], model: FailureModel
) -> FailureModel:
    """Return a model with trees or perceptrons of each region, if asked for, fitted on voxels of other folds' cases.

    They are those from which calibrated p is fitted.
    """
    settings = model.settings
    if not settings.from_voxels:
        return model
    samples, seed = [read_sample(request, case) for case in cases], settings.seed * SEED_OF_FOLD + fold
    trees: list[str] = []
    perceptrons: list[Perceptron | None] = []
    for region, calibration in enumerate(model.calibrations):
        parts = [
            (s.features[region][near], s.logits[region][near], s.decisions[region][near], s.wrong[region][near])
            for s in samples
            for near in (s.near[region],)
            if s.features is not None
        ]
        features, logits, decisions, wrong = (np.concatenate(part) for part in zip(*parts, strict=True))
        known = features if settings.sees_images else without_images(features, model.grid.channels)
        if settings.perceptron:
            fit = calibration, known, logits, decisions, wrong, settings.perceptron, seed
            perceptrons.append(fit_perceptron(*fit))
        else:
            trees.append(fit_trees(calibration, known, logits, decisions, wrong, settings.trees, seed))
    return replace(model, trees=tuple(trees), perceptrons=tuple(perceptrons))


def fit_calibrations(request: RunRequest, cases: Sequence[str]) -> tuple[Calibration, ...]:
    """Fit calibrated p of each region on the sampled voxels near that region of the cases."""
    samples = [read_sample(request, case) for case in cases]
    found = []
    for region in range(len(request.experiment.dataset.task.regions)):
        parts = [(s.logits[region], s.decisions[region], s.wrong[region], s.near[region]) for s in samples]
        logits, decisions, wrong, near = (np.concatenate(part) for part in zip(*parts, strict=True))
        found.append(fit_calibration(logits[near], decisions[near], wrong[near]))
    return tuple(found)


def grid_of(request: RunRequest) -> Grid:
    """Return the grid on which failure networks of a run work."""
    model = ModelFolder(request.run.model, request.experiment.plan.configuration)
    configuration = model.configuration_manager
    spacing = tuple(float(mm) for mm in configuration.spacing)
    if len(spacing) == 2:  # slices: as far apart as the median case's
        spacing = (float(model.plans_manager.original_median_spacing_after_transp[0]), *spacing)
    patch = tuple(int(n) for n in configuration.patch_size)
    return Grid(len(request.experiment.dataset.task.modalities), patch, spacing)  # type: ignore[arg-type]
