"""One new case in three tasks, predicted by one fold or several together, in the case's native space.

Reading and preprocessing, the networks, and writing are tasks of their own, so that a GPU computes one case while the
one before is written and the next is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from uncseg.cluster.resources import Slots
from uncseg.cluster.tasks import map_cases, start_as_task
from uncseg.cluster.workers import Workers
from uncseg.config.sections import Estimators
from uncseg.dataset.brats import MODALITIES, REGIONS, BratsCase, read_reference, read_voxels, write_image
from uncseg.dataset.check import check_case
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.one_pass import OnePass, estimate_one_pass
from uncseg.estimators.registry import ESTIMATORS
from uncseg.evaluation.case_scores import SCORES_VERSION, score_case
from uncseg.evaluation.expectation import around_prediction, describe
from uncseg.evaluation.overlap import region_mask
from uncseg.files import digest, file_states, read_json, remove_partial, write_json
from uncseg.layout import PREDICTION_MAPS, CaseFiles
from uncseg.method.inference.fold_average import FoldAverage, average
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, predict_grid, to_native
from uncseg.method.inference.predictor import loaded_predictor
from uncseg.method.inference.several_predictions import estimate_grid
from uncseg.report.overlay import case_overlay

IN_FLIGHT = 3  # for each that computes: one being read, one computed, one written
Record = dict[str, Any]
_Judged = tuple[str, np.ndarray, np.ndarray | None]
"""Name, labels and map."""


@dataclass(frozen=True)
class PredictionTask:
    """What to predict with, what to make of it, and where to write."""

    model: ModelFolder
    folds: tuple[int, ...]
    """Averaged."""
    output: Path
    threads: int
    tile_step: float
    mirroring: bool
    review_below: float
    trust: bool = False
    """Let checkpoints run code of their own."""
    probabilities: bool = False
    """Write the regions' probabilities too."""
    overlays: bool = False
    """Draw a PNG of each case."""
    scores: bool = False
    """Score each fold, all together, and the estimators' maps, against the cases' references."""
    estimators: Estimators = field(default_factory=Estimators)
    """Maps beside the folds' segmentation."""
    members: tuple[ModelFolder, ...] = ()
    """The other networks of each fold, of a deep folds_together."""

    def source(self) -> str:
        """What predictions are made from: the checkpoints, how they are applied, what is wanted."""
        wanted = [self.tile_step, self.mirroring, self.review_below, self.probabilities, self.overlays, self.scores]
        parts = [SCORES_VERSION, self.model.state(self.folds), wanted]
        if self.estimators.one_pass:
            parts.append(sorted(set(self.estimators.one_pass)))
        if self.estimators.several_pass:
            parts += [
                self.estimators.model_dump(exclude={"one_pass"}),
                [member.state(self.folds) for member in self.members],
            ]
        return digest(parts)

    def files_of(self, case: BratsCase) -> list[Path]:
        """What a case's outputs are made from."""
        return [*case.images, *([case.reference] if self.scores and case.reference else [])]


def predict_new_cases(
    task: PredictionTask, cases: Sequence[BratsCase], slots: Slots, progress: Callable[[int, int], None]
) -> tuple[dict[str, Record], list[Problem]]:
    """Predict every case; needs a connected Ray. What is written already is only read.

    For each it writes CASE.nii.gz, CASE_uncertainty.nii.gz (where the networks have the head), with several folds
    CASE_between_folds.nii.gz, what else the task wants, and, last, CASE.json.

    Args:
        task: how.
        cases: images in the order of the model's channels.
        slots: what a network takes.
        progress: called with (ended, all).

    Returns:
        The contents of CASE.json by case, and the problems of the cases that could not be predicted.
    """
    task.output.mkdir(parents=True, exist_ok=True)
    source = task.source()
    sources = {case.case_id: digest([source, file_states(task.files_of(case))]) for case in cases}
    done = {case.case_id: known for case in cases if (known := _done(task, case, sources[case.case_id])) is not None}
    left = [case for case in cases if case.case_id not in done]
    progress(len(done), len(cases))
    with Workers(slots, len(left)) as workers:
        records, problems = map_cases(
            [(case.case_id, _start, (task, case, sources[case.case_id], workers)) for case in left],
            lambda ended, _: progress(len(done) + ended, len(cases)),
            lambda: IN_FLIGHT * workers.count(),
            "a prediction",
            start=lambda function, arguments: function(*arguments),
        )
    remove_partial(task.output)
    return done | records, problems


def _done(task: PredictionTask, case: BratsCase, source: str) -> Record | None:
    """A case's record, if all that belongs to it is there; whatever else there is of it is removed."""
    files = CaseFiles(task.output, case.case_id)
    if files.scores.is_file():
        before = read_json(files.scores)
        if before.get("source") == source and all((task.output / name).is_file() for name in before.get("files", ())):
            assert isinstance(before, dict)
            return before
    # a map of other folds or options would lie beside labels that it does not belong to
    for file in (files.scores, files.segmentation, files.overlay, *map(files.map, PREDICTION_MAPS)):
        file.unlink(missing_ok=True)
    return None


def _start(task: PredictionTask, case: BratsCase, source: str, workers: Workers) -> Any:
    """Start a case's three tasks; the reference of the last one's result."""
    data, properties = start_as_task(1.0, returns=2)(read_case, (task, case))
    grids = workers.start(_predict, (task, data))
    return start_as_task(1.0)(_finish, (task, case, source, properties, grids))


def read_case(task: PredictionTask, case: BratsCase) -> tuple[np.ndarray, dict[str, Any]]:
    """Check and preprocess a case: (C, D, H, W) float32 on the grid of the plans, and nnU-Net's properties.

    Raises:
        ProblemsFound: the case's files cannot be used.
    """
    torch.set_num_threads(1)
    problems = check_case(case)
    if problems:
        raise ProblemsFound(f"{case.case_id} cannot be predicted.", problems, exit_code=1)
    model = _known(task.model)
    preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
    images = [str(file) for file in case.images]
    data, _, properties = preprocessor.run_case(
        images, None, model.plans_manager, model.configuration_manager, model.dataset_json
    )
    return np.asarray(data), properties


@lru_cache(maxsize=2)
def _known(model: ModelFolder) -> ModelFolder:
    """The same object for every case, so that its files are read once a process."""
    return model


@dataclass(frozen=True)
class _Grids:
    """What the folds say of a case, on the preprocessed grid."""

    folds: list[GridPrediction]
    """In one pass, each."""
    maps: dict[str, np.ndarray]
    """Of the estimators, each the folds' mean."""
    several_pass: dict[str, list[GridPrediction]]
    """Each fold's segmentation by an estimator, where it is scored."""


def _predict(task: PredictionTask, data: np.ndarray) -> _Grids:
    torch.set_num_threads(task.threads)
    # the networks write into nothing of it, but torch wants memory that could be written
    data = np.array(data)
    grids = _Grids([], {}, {name: [] for name in task.estimators.several_pass if task.scores})
    maps = grids.maps
    how = (task.tile_step, task.mirroring, task.trust)
    for fold in task.folds:
        networks = [loaded_predictor(model, fold, *how) for model in (task.model, *task.members)]
        grids.folds.append(predict_grid(networks[0], data))
        for estimator in task.estimators.several_pass:
            of_fold = estimate_grid(estimator, networks, data, task.estimators)
            for name, values in of_fold.maps.items():
                maps[name] = maps.get(name, np.zeros_like(values)) + values / len(task.folds)
            if estimator in grids.several_pass:
                grids.several_pass[estimator].append(GridPrediction(of_fold.logits, None))
    return grids


def _finish(
    task: PredictionTask,
    case: BratsCase,
    source: str,
    properties: dict[str, Any],
    grids: _Grids,
) -> Record:
    torch.set_num_threads(1)
    folds_together = average(_known(task.model), grids.folds, properties)
    image = sitk.ReadImage(str(case.images[0]))
    files = CaseFiles(task.output, case.case_id)
    predicted = region_mask(folds_together.labels, "WT")
    uncertainty = around_prediction(folds_together.uncertainty, predicted)
    record = describe(folds_together.labels, uncertainty, image.GetSpacing(), task.review_below)
    maps = {"uncertainty": uncertainty, "between_folds": folds_together.between_folds if len(grids.folds) > 1 else None}
    if task.probabilities:
        maps |= {
            f"{name.lower()}_probability": p for name, p in zip(REGIONS, folds_together.probabilities, strict=True)
        }
    of_one_pass = _of_one_pass(task.estimators.one_pass, folds_together, predicted)
    maps |= of_one_pass
    if grids.maps:
        stacked = to_native(np.stack(list(grids.maps.values())), properties, _known(task.model))
        maps |= dict(zip(grids.maps, stacked, strict=True))
    written = [files.segmentation]
    for name, values in maps.items():
        if values is not None:
            write_image(files.map(name), values.astype(np.float32), image)
            written.append(files.map(name))
    write_image(files.segmentation, folds_together.labels, image)
    if task.overlays:
        _draw(files, case, folds_together.labels, uncertainty)
        written.append(files.overlay)
    if task.scores:
        judged: list[_Judged] = [
            *((f"fold_{fold}", *alone) for fold, alone in zip(task.folds, folds_together.alone, strict=True)),
            ("mean", folds_together.labels, folds_together.uncertainty),
            *((name, folds_together.labels, values) for name, values in of_one_pass.items()),
        ]
        for estimator, own in grids.several_pass.items():
            labels = average(_known(task.model), own, properties).labels
            judged += [(name, labels, maps[name]) for name in ESTIMATORS[estimator].maps]
        record["scores"] = _scores(case, judged)
    about = {"case": case.case_id, "folds": list(task.folds), "source": source, "files": [f.name for f in written]}
    write_json(files.scores, about | record)
    return about | record


def _of_one_pass(names: Sequence[str], folds_together: FoldAverage, predicted_wt: np.ndarray) -> dict[str, np.ndarray]:
    """Maps that the folds' mean probabilities give, (D, H, W) float32."""
    p_wt, most, predicted = (
        torch.from_numpy(np.ascontiguousarray(volume))[None, None]
        for volume in (folds_together.probabilities[0], folds_together.max_probability, predicted_wt)
    )
    maps = estimate_one_pass(names, OnePass(p_wt, most, predicted))
    return {name: values[0, 0].numpy() for name, values in maps.items()}


def _scores(case: BratsCase, judged: Sequence[_Judged]) -> list[Record]:
    """Rows for each fold, for all together and for each estimator's map (``model``: fold_0, …, mean, MAP, …)."""
    reference, image = read_reference(case)
    brain = read_voxels(case.images[0]) != 0
    rows = []
    for name, labels, uncertainty in judged:
        masked = around_prediction(uncertainty, region_mask(labels, "WT"))
        maps = None if masked is None else dict.fromkeys(REGIONS, masked)
        for row in score_case(reference, labels, image.GetSpacing()[::-1], maps, brain):
            rows.append({"case": case.case_id, "patient": case.patient, "model": name, **row})
    return rows


def _draw(files: CaseFiles, case: BratsCase, labels: np.ndarray, uncertainty: np.ndarray | None) -> None:
    shown = case.images[min(MODALITIES.index("t2f"), len(case.images) - 1)]
    case_overlay(files.overlay, read_voxels(shown), labels, uncertainty, case.case_id)
