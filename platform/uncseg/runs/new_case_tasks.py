"""One new case in three Ray tasks: read and preprocess, predict, write. One fold or several together predict it.

The three are tasks of their own so that a GPU predicts one case while the one before it is written and the next one is
read.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from uncseg.dataset.brats import MODALITIES, BratsCase, read_reference, read_voxels, write_image
from uncseg.dataset.check import check_case
from uncseg.errors import raise_if_any
from uncseg.estimators.one_pass import OnePass, estimate_one_pass
from uncseg.estimators.registry import ESTIMATORS
from uncseg.evaluation.case_scores import SCORES_VERSION
from uncseg.evaluation.expectation import around_prediction, describe
from uncseg.evaluation.overlap import region_mask
from uncseg.files import digest, file_states, keep_record
from uncseg.layout import REGION_PROBABILITIES, CaseFiles
from uncseg.method.inference.fold_average import FoldAverage, average_folds
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, native_maps, predict_grid
from uncseg.method.inference.predictor import loaded_predictor
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.report.overlay import draw_overlay
from uncseg.runs.fold_prediction import as_batch
from uncseg.runs.model_sources import PredictionModel
from uncseg.runs.out_of_fold import region_scores

Record = dict[str, Any]
FOLD_MEAN = "mean"
"""The name of all folds together in scores."""


@dataclass(frozen=True)
class PredictionOptions:
    """What a command asks for beside labels and uncertainty; None: as the model's experiment says."""

    probabilities: bool = False
    """Write CASE_wt_probability.nii.gz, CASE_tc_probability.nii.gz and CASE_et_probability.nii.gz."""
    overlays: bool = False
    """Draw CASE.png."""
    mirroring: bool | None = None
    """Test-time mirroring, 8 passes."""
    review_below: float | None = None
    """Flag cases whose expected WT Dice is lower."""
    scores: bool = False
    """Score each fold, all folds together and the estimators' maps against the cases' references."""


@dataclass(frozen=True)
class PredictionTask:
    """What to predict with, what to write, and where."""

    model: PredictionModel
    options: PredictionOptions
    output: Path
    threads: int
    trust: bool = False
    """Let checkpoints run code of their own."""

    @property
    def mirroring(self) -> bool:
        """Whether predictions are averaged over mirrored copies."""
        chosen = self.options.mirroring
        return self.model.evaluation.mirroring if chosen is None else chosen

    @property
    def review_below(self) -> float:
        """Expected WT Dice below which a case is flagged."""
        chosen = self.options.review_below
        return self.model.review_below if chosen is None else chosen

    def sources(self, cases: Sequence[BratsCase]) -> dict[str, str]:
        """Return a digest per case of what its outputs depend on: checkpoints, settings, options, the case's files."""
        model, evaluation = self.model, self.model.evaluation
        options = asdict(self.options) | {"mirroring": self.mirroring, "review_below": self.review_below}
        networks = [folder.state(model.folds) for folder in (model.folder, *model.members)]
        parts = [SCORES_VERSION, networks, options, evaluation.tile_step, evaluation.estimators.model_dump()]
        source = digest(parts)
        files = {case.case_id: case.files if self.options.scores else case.images for case in cases}
        return {case: digest([source, file_states(paths)]) for case, paths in files.items()}


@dataclass(frozen=True)
class GridPredictions:
    """What the folds' networks predict for a case, on the preprocessed grid."""

    folds: list[GridPrediction]
    """One pass of each fold."""
    maps: dict[str, np.ndarray]
    """Maps of the estimators of several passes, each the mean over the folds."""
    segmentations: dict[str, list[GridPrediction]]
    """Each fold's segmentation by such an estimator; empty unless it is scored."""


def read_case(task: PredictionTask, case: BratsCase) -> tuple[np.ndarray, dict[str, Any]]:
    """Check and preprocess a case; return (C, D, H, W) float32 on the grid of the plans, and nnU-Net's properties.

    Raises:
        ProblemsFound: the case's files cannot be used.
    """
    torch.set_num_threads(1)
    raise_if_any(check_case(case), f"{case.case_id} cannot be predicted.", exit_code=1)
    model = _same_object(task.model.folder)
    preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(
        [str(file) for file in case.images], None, model.plans_manager, model.configuration_manager, model.dataset_json
    )
    return np.asarray(data), properties


@lru_cache(maxsize=2)
def _same_object(model: ModelFolder) -> ModelFolder:
    """Return the same object for every case, so that a process reads the model's files once."""
    return model


def predict_case(task: PredictionTask, data: np.ndarray) -> GridPredictions:
    """Predict a preprocessed case, (C, D, H, W), with every fold and every chosen estimator."""
    torch.set_num_threads(task.threads)
    # copy, because Ray's memory is read-only and torch warns about such memory
    data = np.array(data)
    model, evaluation = task.model, task.model.evaluation
    estimators = evaluation.estimators
    predictions = GridPredictions([], {}, {name: [] for name in estimators.several_pass if task.options.scores})
    maps = predictions.maps
    applied = evaluation.tile_step, task.mirroring, task.trust
    for fold in model.folds:
        networks = [loaded_predictor(folder, fold, *applied) for folder in (model.folder, *model.members)]
        predictions.folds.append(predict_grid(networks[0], data))
        for estimator in estimators.several_pass:
            estimate = estimate_grid(estimator, networks, data, estimators)
            for name, values in estimate.maps.items():
                maps[name] = maps.get(name, np.zeros_like(values)) + values / len(model.folds)
            if estimator in predictions.segmentations:
                predictions.segmentations[estimator].append(GridPrediction(estimate.logits))
    return predictions


def write_case(
    task: PredictionTask, case: BratsCase, source: str, properties: dict[str, Any], predictions: GridPredictions
) -> Record:
    """Bring a case's predictions into its native space, write them, and return its record, which is written last."""
    torch.set_num_threads(1)
    model, options = _same_object(task.model.folder), task.options
    folds = average_folds(model, predictions.folds, properties)
    image = sitk.ReadImage(str(case.images[0]))
    files = CaseFiles(task.output, case.case_id)
    predicted = region_mask(folds.labels, "WT")
    uncertainty = around_prediction(folds.uncertainty, predicted)
    record = describe(folds.labels, uncertainty, image.GetSpacing(), task.review_below)
    maps = {"uncertainty": uncertainty, "between_folds": folds.between_folds if len(predictions.folds) > 1 else None}
    if options.probabilities:
        maps |= dict(zip(REGION_PROBABILITIES, folds.probabilities, strict=True))
    one_pass = _one_pass_maps(task.model.evaluation.estimators.one_pass, folds, predicted)
    maps |= one_pass
    maps |= native_maps(predictions.maps, properties, model)
    known = {files.map(name): values for name, values in maps.items() if values is not None}
    for file, values in known.items():
        write_image(file, values.astype(np.float32), image)
    write_image(files.segmentation, folds.labels, image)
    written = [files.segmentation, *known]
    if options.overlays:
        shown = case.images[min(MODALITIES.index("t2f"), len(case.images) - 1)]
        seen, drawn = {"prediction": folds.labels}, {} if uncertainty is None else {"uncertainty": uncertainty}
        draw_overlay(files.overlay, read_voxels(shown), seen, drawn, case.case_id, image_name="image")
        written.append(files.overlay)
    if options.scores:
        scored = {f"fold_{fold}": alone for fold, alone in zip(task.model.folds, folds.per_fold, strict=True)}
        scored[FOLD_MEAN] = folds.labels, folds.uncertainty
        scored |= {name: (folds.labels, values) for name, values in one_pass.items()}
        for estimator, grids in predictions.segmentations.items():
            labels = average_folds(model, grids, properties).labels
            scored |= {name: (labels, maps[name]) for name in ESTIMATORS[estimator].maps}
        record["scores"] = _scores(case, scored)
    about = {"case": case.case_id, "folds": list(task.model.folds), "files": [file.name for file in written]}
    return keep_record(files.scores, source, about | record)


def _one_pass_maps(names: Sequence[str], folds: FoldAverage, predicted_wt: np.ndarray) -> dict[str, np.ndarray]:
    """Return the maps that the folds' mean probabilities give, (D, H, W) float32."""
    volumes = (folds.probabilities[0], folds.max_probability, predicted_wt)
    maps = estimate_one_pass(names, OnePass(*map(as_batch, volumes)))
    return {name: values[0, 0].numpy() for name, values in maps.items()}


def _scores(case: BratsCase, scored: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> list[Record]:
    """Return one row per region of each model's labels and map; ``model`` is fold_0, …, mean, or the name of a map."""
    reference, image = read_reference(case)
    brain = read_voxels(case.images[0]) != 0
    rows = []
    for model, (labels, uncertainty) in scored.items():
        masked = around_prediction(uncertainty, region_mask(labels, "WT"))
        keys = {"case": case.case_id, "patient": case.patient, "model": model}
        rows += [keys | row for row in region_scores(reference, labels, masked, brain, image)]
    return rows
