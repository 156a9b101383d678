"""A registered model as MLflow's Python function: voxels in, labels and uncertainty out; no files and no Ray.

    model = mlflow.pyfunc.load_model("models:/NAME@candidate")
    found = model.predict({"image": image, "spacing_mm": (1.0, 1.0, 1.0)})

The MLmodel file of each stored model names this module, so it must not move. Like ``cli.py`` it is an entry point: no
other module imports it. It does not import MLflow, which only calls :func:`_load_pyfunc`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.config.sections import Evaluation
from uncseg.dataset.case_volumes import intensity_problems
from uncseg.dataset.finite import count_not_finite, naming, require_finite_channels
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.chosen_map import learns_for_choice, possible_choices
from uncseg.evaluation.expectation import (
    REVIEW_BELOW,
    around_prediction,
    describe,
    expected_dice_column,
    thresholds_in,
)
from uncseg.evaluation.overlap import main_mask
from uncseg.layout import UNCERTAINTY, folds_in
from uncseg.method.inference.fold_average import FoldAverage, average_folds
from uncseg.method.inference.learnt_failures import LearntFailures
from uncseg.method.inference.model_folder import open_model_folder, read_description
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.inference.predictor import loaded_predictor

FIELDS = ("image", "spacing_mm")


class Segmentation:
    """The folds of a model folder, whose predictions are averaged; it has uncseg.json if it comes from MLflow.

    Raises:
        ProblemsFound: it is no such folder, or its checkpoints or plans cannot be loaded without running their code.
    """

    def __init__(self, folder: Path) -> None:
        self.model, self.folds = open_model_folder(folder), tuple(folds_in(folder))
        description = read_description(folder)
        evaluation = Evaluation.model_validate(description.get("evaluation", {}))
        self._review_below = thresholds_in(description)
        self._channels = list(
            map(str, description.get("channels") or self.model.dataset_json["channel_names"].values())
        )
        with contextlib.redirect_stdout(None):  # nnU-Net prints that it uses no GPU
            self._predictors = [
                loaded_predictor(self.model, fold, evaluation.tile_step, evaluation.mirroring, trust=False)
                for fold in self.folds
            ]
        self._task = self.model.task  # raises where the labels are unknown
        self._wanted, self._tile_step = evaluation.uncertainty, evaluation.tile_step

    def predict(self, model_input: Mapping[str, Any], params: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Segment one case.

        Args:
            model_input: ``image``, (channels, D, H, W), the channels in the model's order, which its card lists;
                ``spacing_mm``, (3,), size of a voxel along D, H, W.
            params: part of MLflow's interface; not used.

        Returns:
            ``labels``, (D, H, W) uint8, as the card numbers them; ``uncertainty``, (D, H, W) float32 in [0, 1], inside
            the predicted main region dilated by 2 voxels (everywhere if nothing of it is predicted), and
            ``uncertainty_unmasked``; ``uncertainty_from``, which map that is (``estimators/chosen_map.py``), all three
            None where the model has none; and what ``uncseg predict`` writes into CASE.json:
            ``expected_dice_MAIN`` of the main region, volumes in mL, ``review`` and its reason.

        Raises:
            ProblemsFound: with everything that is wrong with the input; or values are not finite after normalisation,
                or in a prediction.
        """
        image, spacing_mm = self._checked(model_input)
        model = self.model
        preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
        settings = (model.plans_manager, model.configuration_manager, model.dataset_json)
        with naming("image"), np.errstate(over="ignore", invalid="ignore"):
            data, _, properties = preprocessor.run_case_npy(image, None, {"spacing": spacing_mm}, *settings)
            require_finite_channels(data, self._channels)
            averaged = self._averaged(data, properties)
        task = self._task
        predicted = main_mask(averaged.labels, task)
        name, unmasked = averaged.chosen_uncertainty(task, predicted, self._wanted)
        masked = around_prediction(unmasked, predicted)
        return {
            "labels": averaged.labels,
            "uncertainty": masked,
            "uncertainty_unmasked": unmasked,
            "uncertainty_from": name,
            expected_dice_column(task): None,
            **describe(averaged.labels, masked, spacing_mm, self._review_below.get(name or "", REVIEW_BELOW), task),
        }

    def _averaged(self, data: np.ndarray, properties: dict[str, Any]) -> FoldAverage:
        """Return what the folds predict of a preprocessed case, (channels, D, H, W), with what they have learnt."""
        grids, learnt = [], []
        for fold, predictor in zip(self.folds, self._predictors, strict=True):
            grid, own = predict_grid(predictor, data), None
            if learns_for_choice(self._wanted, UNCERTAINTY in grid.maps):
                own = LearntFailures.of(self.model, fold)
            if own is not None and "cross_fitted" in possible_choices(self._wanted, UNCERTAINTY in grid.maps):
                grid = replace(grid, corrected=own.on_grid(data, grid, self._tile_step))
            grids.append(grid)
            learnt.append(own)
        return average_folds(self.model, grids, properties, learnt)

    def _checked(self, model_input: Mapping[str, Any]) -> tuple[np.ndarray, list[float]]:
        problems: list[Problem] = []
        image, spacing = (_numbers(model_input, name, problems) for name in FIELDS)
        if image is not None:
            problems += self._image_problems(image)
        if spacing is not None and (spacing.shape != (3,) or not np.isfinite(spacing).all() or (spacing <= 0).any()):
            found = f"{spacing.tolist()}" if spacing.size < 10 else f"an array of shape {spacing.shape}"
            problems.append(Problem("spacing_mm", found, "three positive numbers, in mm", "give D, H, W of a voxel"))
        if image is None or spacing is None or problems:
            raise ProblemsFound("The case cannot be segmented.", problems)
        return image.astype(np.float32), spacing.astype(float).tolist()

    def _image_problems(self, image: np.ndarray) -> list[Problem]:
        problems = []
        if image.ndim != 4 or len(image) != len(self._channels) or 0 in image.shape:
            expected = f"({len(self._channels)}, D, H, W): {', '.join(self._channels)}"
            problems.append(Problem("image", f"shape {image.shape}", expected, "stack the images in this order"))
        if wrong := count_not_finite(image):
            found = f"{wrong} voxels that are NaN or infinite"
            problems.append(Problem("image", found, "finite values", "repair the image"))
        if not problems:
            for name, channel in zip(self._channels, image, strict=True):
                problems += intensity_problems(f"image: {name}", channel)
        return problems


def _numbers(model_input: Any, name: str, problems: list[Problem]) -> np.ndarray | None:
    """Return a field of the input as an array of real numbers; if that fails, add the problem and return None."""
    if not isinstance(model_input, Mapping) or name not in model_input:
        problems.append(Problem(name, "nothing", "a value", f"give a dictionary with {' and '.join(FIELDS)}"))
        return None
    try:
        array = np.asarray(model_input[name])
    except ValueError:  # nested lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind in "biuf":
        return array
    problems.append(Problem(name, f"values of type {array.dtype}", "real numbers", "give an array of numbers"))
    return None


def _load_pyfunc(path: str) -> Segmentation:
    """Return the model; MLflow calls this with the model's folder on this machine."""
    return Segmentation(Path(path))
