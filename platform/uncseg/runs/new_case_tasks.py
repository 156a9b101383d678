"""One new case in three Ray tasks: read and preprocess, predict, write. One fold or several together predict it.

They are three Ray tasks so that a GPU predicts one case while another is written and the next one is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import plan_slots
from uncseg.cluster.session import ray_session
from uncseg.cluster.tasks import Workers, map_cases, start_as_task
from uncseg.config.task_files import TASK_FILE, write_task
from uncseg.console import counting
from uncseg.dataset.case_volumes import read_case_volumes, read_reference
from uncseg.dataset.cases import Case
from uncseg.dataset.finite import naming, require_finite_channels
from uncseg.dataset.volumes import read_volume, write_volume
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.chosen_map import learns_for_choice, possible_choices
from uncseg.estimators.registry import CROSS_FITTED, ESTIMATORS, LEARNT, NOT_MIRRORED
from uncseg.evaluation.expectation import around_prediction, describe
from uncseg.evaluation.overlap import main_mask
from uncseg.kept_records import keep_record, kept_record
from uncseg.layout import (
    BETWEEN_FOLDS,
    UNCERTAINTY,
    CaseFiles,
    prediction_maps,
    region_probabilities,
)
from uncseg.method.inference.fold_average import average_folds
from uncseg.method.inference.learnt_failures import LearntFailures
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, native_maps, predict_grid
from uncseg.method.inference.predictor import loaded_predictor
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.outputs import Outputs
from uncseg.report.overlay import draw_overlay
from uncseg.runs.model_sources import PredictionModel
from uncseg.runs.new_case_maps import maps_of_regions, one_pass_maps
from uncseg.runs.out_of_fold import region_scores
from uncseg.runs.prediction_request import PredictionOptions, PredictionRequest
from uncseg.runs.preflight import require_folders
from uncseg.tasks.task import Task

PREDICTIONS = "predictions"
"""Kind of the outputs, and name of their table."""
IN_FLIGHT = 3  # cases per worker: one is read, one predicted, one written
Record = dict[str, Any]
GEOMETRY, WARNINGS = "geometry", "warnings"
"""Entries that are added to nnU-Net's properties of a case."""
FOLD_MEAN = "mean"
"""The name of all folds together in scores."""


@dataclass(frozen=True)
class GridPredictions:
    """What the folds' networks predict for a case, on the preprocessed grid."""

    folds: list[GridPrediction]
    """One pass of each fold."""
    maps: dict[str, np.ndarray]
    """Maps of the estimators of several passes, each the mean over the folds."""
    segmentations: dict[str, list[GridPrediction]]
    """Each fold's segmentation by such an estimator; empty unless it is scored."""


def predictions_in(output: Path, option: str = "OUTPUT") -> Outputs:
    """Return the predictions in a folder; a command claims them for all of :func:`predict_new_cases`."""
    return Outputs(output, PREDICTIONS, option)


def prediction_names(cases: Sequence[Case], task: Task, overlays: bool) -> list[str]:
    """Return the names of all files that a prediction of the cases may write into its folder."""
    names = [f"{PREDICTIONS}.parquet", f"{PREDICTIONS}.csv", TASK_FILE]
    for case in cases:
        files = CaseFiles(Path(), case.case_id)
        maps = map(files.map, prediction_maps(task))
        names += [str(file) for file in (files.scores, files.segmentation, *maps, *([files.overlay] * overlays))]
    return names


def read_case(request: PredictionRequest, case: Case) -> tuple[np.ndarray, dict[str, Any]]:
    """Check and preprocess a case; return (C, D, H, W) float32 on the grid of the plans, and nnU-Net's properties.

    The properties also hold the first image's geometry and the case's warnings.

    Raises:
        ProblemsFound: the case's files cannot be used, or its values are not finite after normalisation.
    """
    torch.set_num_threads(1)
    volumes = read_case_volumes(case, request.scoring)
    from uncseg.dataset.nnunet_case import LoadedCase

    model = _same_object(request.model.folder)
    preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
    images, properties = LoadedCase(volumes).read_images([])
    managers = model.plans_manager, model.configuration_manager, model.dataset_json
    with naming(case.case_id), np.errstate(over="ignore", invalid="ignore"):
        data, _, properties = preprocessor.run_case_npy(images, None, properties, *managers)
        require_finite_channels(np.asarray(data), list(model.dataset_json["channel_names"].values()))
    properties[GEOMETRY], properties[WARNINGS] = volumes.geometry, volumes.warnings
    return np.asarray(data), properties


@lru_cache(maxsize=2)
def _same_object(model: ModelFolder) -> ModelFolder:
    """Return the same object for every case, so that a process reads the model's files once."""
    return model


def predict_case(request: PredictionRequest, case_id: str, data: np.ndarray) -> GridPredictions:
    """Predict a preprocessed case, (C, D, H, W), with every fold and estimator; refuse values that are not finite."""
    torch.set_num_threads(request.threads)
    # copy, because Ray's memory is read-only and torch warns about such memory
    data = np.array(data)
    model, evaluation = request.model, request.model.evaluation
    estimators = evaluation.estimators
    predictions = GridPredictions([], {}, {name: [] for name in estimators.several_pass if request.options.scores})
    maps = predictions.maps
    applied = evaluation.tile_step, request.mirroring, request.trust
    for fold in model.folds:
        networks = [loaded_predictor(folder, fold, *applied) for folder in (model.folder, *model.members)]
        with naming(case_id):
            grid = predict_grid(networks[0], data)
            choices = possible_choices(evaluation.uncertainty, UNCERTAINTY in grid.maps)
            judged = CROSS_FITTED in (*estimators.one_pass, *choices)
            learnt = LearntFailures.of(model.folder, fold) if judged else None
            if learnt is not None:
                grid = replace(grid, corrected=learnt.on_grid(data, grid, evaluation.tile_step))
            predictions.folds.append(grid)
        for estimator in estimators.several_pass:
            with naming(case_id):
                estimate = estimate_grid(estimator, networks, data, estimators)
            for name, values in estimate.maps.items():
                maps[name] = maps.get(name, np.zeros_like(values)) + values / len(model.folds)
            if estimator in predictions.segmentations:
                predictions.segmentations[estimator].append(GridPrediction(estimate.logits))
    return predictions


def write_case(
    request: PredictionRequest, case: Case, source: str, properties: dict[str, Any], predictions: GridPredictions
) -> Record:
    """Bring a case's predictions into its native space, write them, and return its record, which is written last.

    Raises:
        ProblemsFound: a map is not finite. Whatever is raised, no file that was written for the case is left.
    """
    outputs = predictions_in(request.output)
    try:
        with naming(case.case_id), outputs.noting(owner=case.case_id):
            return _write_case(request, case, source, properties, predictions)
    except Exception:
        outputs.remove(owner=case.case_id)
        raise


def _write_case(
    request: PredictionRequest, case: Case, source: str, properties: dict[str, Any], predictions: GridPredictions
) -> Record:
    torch.set_num_threads(1)
    model, options, task = _same_object(request.model.folder), request.options, request.model.task
    one_pass_chosen = {*request.model.evaluation.estimators.one_pass}
    has_head = UNCERTAINTY in predictions.folds[0].maps
    learns = {*LEARNT} & one_pass_chosen or learns_for_choice(request.model.evaluation.uncertainty, has_head)
    learnt = [LearntFailures.of(model, fold) for fold in request.model.folds] if learns else []
    folds = average_folds(model, predictions.folds, properties, learnt)
    geometry = properties[GEOMETRY]
    files = CaseFiles(request.output, case.case_id)
    predicted = main_mask(folds.labels, task)
    from_map, unmasked = folds.chosen_uncertainty(task, predicted, request.model.evaluation.uncertainty)
    uncertainty = around_prediction(unmasked, predicted)
    record = describe(folds.labels, uncertainty, geometry.spacing_mm, request.review_below(from_map), task)
    maps = {UNCERTAINTY: uncertainty, BETWEEN_FOLDS: folds.between_folds if len(predictions.folds) > 1 else None}
    if options.probabilities:
        maps |= dict(zip(region_probabilities(task).values(), folds.probabilities, strict=True))
    one_pass = one_pass_maps(request.model, folds, predicted)
    several = native_maps(predictions.maps, properties, model)
    maps |= one_pass | several | maps_of_regions(request.model, folds)
    known = {name: values for name, values in maps.items() if values is not None}
    for name, values in known.items():
        write_volume(files.map(name), values.astype(np.float32), geometry)
    write_volume(files.segmentation, folds.labels, geometry)
    written = [files.segmentation, *map(files.map, known)]
    if options.overlays:
        shown = read_volume(case.images[min(task.shown_channel, len(case.images) - 1)])
        drawn = {} if uncertainty is None else {UNCERTAINTY: uncertainty}
        segmentations = {"prediction": folds.labels}
        draw_overlay(files.overlay, shown.voxels, segmentations, drawn, case.case_id, task, "image")
        written.append(files.overlay)
    if options.scores:
        pairs = zip(request.model.folds, folds.per_fold, strict=True)
        # a fold's own map is its head's: beside another map of all folds it would look like a worse one
        scored = {f"fold_{fold}": (own, head if from_map == "head" else None) for fold, (own, head) in pairs}
        scored[FOLD_MEAN] = folds.labels, unmasked
        scored |= {name: (folds.labels, values) for name, values in one_pass.items()}
        for estimator, grids in predictions.segmentations.items():
            labels = average_folds(model, grids, properties).labels
            scored |= {name: (labels, several[name]) for name in ESTIMATORS[estimator].maps}
        record["scores"] = _scores(case, scored, request.scoring)
    warnings = [f"{warning.where}: {warning.found}" for warning in properties[WARNINGS]]
    about = {"case": case.case_id, "warnings": warnings, "folds": list(request.model.folds)}
    about["files"] = [file.name for file in written]
    record["uncertainty_from"] = from_map
    return keep_record(files.scores, source, about | record)


def _scores(case: Case, scored: dict[str, tuple[np.ndarray, np.ndarray | None]], task: Task) -> list[Record]:
    """Return one row per region of each model's labels and map; ``model`` is fold_0, …, mean, or the name of a map."""
    reference, geometry = read_reference(case, task)
    brain = read_volume(case.images[0]).voxels != 0
    rows = []
    for model, (labels, uncertainty) in scored.items():
        masked = around_prediction(uncertainty, main_mask(labels, task))
        keys = {"case": case.case_id, "patient": case.patient, "model": model}
        rows += [keys | row for row in region_scores(reference, labels, masked, brain, geometry, task)]
    return rows


def predict_new_cases(
    model: PredictionModel,
    cases: Sequence[Case],
    output: Path,
    options: PredictionOptions,
    trust: bool,
    reads: Mapping[str, Path],
    writes: Mapping[str, Path],
) -> tuple[dict[str, Record], list[Problem]]:
    """Predict every case that is not finished yet, on the Ray that the model's resources name.

    Per case it writes CASE.nii.gz, CASE_uncertainty.nii.gz (see ``estimators/chosen_map.py``), with several folds
    CASE_between_folds.nii.gz, what else the options ask for, and, last, CASE.json.

    Args:
        cases: images in the order of the model's channels.
        reads, writes: folders that every node has to see, by the names that the user knows them under.

    Returns:
        The contents of CASE.json by case, and the problems of the cases that could not be predicted.

    Raises:
        ProblemsFound: the model's labels are unknown, or a node does not see a folder.
    """
    with ray_session(model.resources.ray_address) as own_ray:
        require_folders(writes, reads, own_ray)
        slots = plan_slots(model.resources, max(1, len(cases)), connected_cluster(model.resources, own_ray))
        _ = model.folder.task  # raises where the labels are unknown
        request = PredictionRequest(model, options, output.resolve(), slots.cpus_per_process, trust)
        request.output.mkdir(parents=True, exist_ok=True)
        write_task(request.output / TASK_FILE, model.task)
        sources = request.sources(cases)
        records = {name: _finished_record(CaseFiles(request.output, name), source) for name, source in sources.items()}
        finished = {name: record for name, record in records.items() if record is not None}
        todo = [case for case in cases if case.case_id not in finished]
        with counting() as progress, Workers(slots, len(todo)) as workers:
            progress("predicted cases", len(finished), len(cases))
            calls = [(case.case_id, _start_tasks, (request, case, sources[case.case_id], workers)) for case in todo]
            predicted, problems = map_cases(
                calls,
                lambda ended, _: progress("predicted cases", len(finished) + ended, len(cases)),
                lambda: IN_FLIGHT * workers.count(),
                "a prediction",
                start=lambda function, arguments: function(*arguments),
            )
    return finished | predicted, problems


def refuse_options(model: PredictionModel, options: PredictionOptions) -> None:
    """Raise ``ProblemsFound`` where the options exclude the model's estimators."""
    chosen = model.evaluation.estimators.several_pass if options.mirroring else ()
    if mirrors := [name for name in chosen if NOT_MIRRORED in ESTIMATORS[name].needs]:
        expected = "one of the two: mirrored copies of mirrored copies are all the same"
        found = f"with evaluation.estimators.{' and '.join(mirrors)}"
        problem = Problem("--mirroring", found, expected, "leave --mirroring out")
        raise ProblemsFound("The options exclude each other.", [problem])


def _finished_record(files: CaseFiles, source: str) -> Record | None:
    """Return a case's record if all of its files are there; otherwise remove those that are."""
    record = kept_record(files.scores, source)
    if record is None:
        # a map of other folds or options would lie beside labels that it does not belong to
        predictions_in(files.root).remove(owner=files.case_id)
    return record


def _start_tasks(request: PredictionRequest, case: Case, source: str, workers: Workers) -> Any:
    """Start a case's three Ray tasks and return the reference of the last one's result."""
    data, properties = start_as_task(1.0, returns=2)(read_case, (request, case))
    predictions = workers.start(predict_case, (request, case.case_id, data))
    return start_as_task(1.0)(write_case, (request, case, source, properties, predictions))
