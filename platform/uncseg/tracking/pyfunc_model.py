"""A model of MLflow's registry as a Python function: voxels in, labels and uncertainty out; no files and no Ray.

    model = mlflow.pyfunc.load_model("models:/NAME@candidate")
    found = model.predict({"image": image, "spacing_mm": (1.0, 1.0, 1.0)})

The model's MLmodel names this module and nothing else of ours, so it stays where it is. It is a door into the product
as ``cli.py`` is, and lies beside it: it uses method, dataset and evaluation, and nobody uses it. It knows nothing of
MLflow, which only calls :func:`_load_pyfunc`.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.config.sections import Evaluation
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.expectation import REVIEW_BELOW, around_prediction, describe
from uncseg.evaluation.overlap import region_mask
from uncseg.method.inference.fold_average import average
from uncseg.method.inference.model_folder import folds_in, open_model_folder, read_description
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.inference.predictor import loaded_predictor

FIELDS = ("image", "spacing_mm")


class Segmentation:
    """The folds of a model folder, which predict together.

    Args:
        folder: with plans.json, dataset.json, folds, and uncseg.json where the model comes from MLflow.

    Raises:
        ProblemsFound: where it is no such folder, or its checkpoints or plans cannot be used without running code.
    """

    def __init__(self, folder: Path) -> None:
        self.model, self.folds = open_model_folder(folder), tuple(folds_in(folder))
        description = read_description(folder)
        evaluation = Evaluation.model_validate(description.get("evaluation", {}))
        self._review_below = float(description.get("review_below", REVIEW_BELOW))
        named = description.get("channels") or self.model.dataset_json["channel_names"].values()
        self._channels = [str(name) for name in named]
        with contextlib.redirect_stdout(None):  # nnU-Net prints that it does without a GPU
            self._predictors = [
                loaded_predictor(self.model, fold, evaluation.tile_step, evaluation.mirroring, trust=False)
                for fold in self.folds
            ]
        _ = self.model.meaning  # labels that are not BraTS' are refused here

    def predict(self, model_input: Mapping[str, Any], params: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Segment one case.

        Args:
            model_input: ``image``, (channels, D, H, W), the channels in the model's order (ours: t1n, t1c, t2w, t2f);
                ``spacing_mm``, (3,), of a voxel along D, H, W.
            params: MLflow's; none are known.

        Returns:
            ``labels``, (D, H, W) uint8: 1 NCR, 2 ED, 3 ET; ``uncertainty``, (D, H, W) float32 in [0, 1], inside the
            prediction dilated by 2 voxels (everywhere where nothing is predicted), and ``uncertainty_unmasked``, None
            both without the head; and what ``uncseg predict`` writes into CASE.json: ``expected_dice_wt``, volumes in
            mL, ``review`` and its reason.

        Raises:
            ProblemsFound: with everything that is wrong with the input.
        """
        image, spacing_mm = self._checked(model_input)
        model = self.model
        preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            image,
            None,
            {"spacing": spacing_mm},
            model.plans_manager,
            model.configuration_manager,
            model.dataset_json,
        )
        grids = [predict_grid(predictor, data) for predictor in self._predictors]
        folds_together = average(model, grids, properties)
        unmasked = folds_together.uncertainty
        masked = around_prediction(unmasked, region_mask(folds_together.labels, "WT"))
        return {
            "labels": folds_together.labels,
            "uncertainty": masked,
            "uncertainty_unmasked": unmasked,
            "expected_dice_wt": None,
            **describe(folds_together.labels, masked, spacing_mm, self._review_below),
        }

    def _checked(self, model_input: Mapping[str, Any]) -> tuple[np.ndarray, list[float]]:
        title = "The case cannot be segmented."
        known = isinstance(model_input, Mapping)
        problems = [
            Problem(name, "nothing", "a value", f"give a dictionary with {' and '.join(FIELDS)}")
            for name in FIELDS
            if not known or name not in model_input
        ]
        if problems:
            raise ProblemsFound(title, problems)
        image, spacing = (_numbers(name, model_input[name], problems) for name in FIELDS)
        if image is not None:
            problems += self._image_problems(image)
        if spacing is not None and (spacing.shape != (3,) or not np.isfinite(spacing).all() or (spacing <= 0).any()):
            found = f"{spacing.tolist()}" if spacing.size < 10 else f"an array of shape {spacing.shape}"
            problems.append(Problem("spacing_mm", found, "three positive numbers, in mm", "give D, H, W of a voxel"))
        if problems:
            raise ProblemsFound(title, problems)
        assert image is not None
        assert spacing is not None
        return image.astype(np.float32), [float(along) for along in spacing]

    def _image_problems(self, image: np.ndarray) -> list[Problem]:
        names, problems = ", ".join(self._channels), []
        if image.ndim != 4 or len(image) != len(self._channels) or 0 in image.shape:
            expected = f"({len(self._channels)}, D, H, W): {names}"
            problems.append(Problem("image", f"shape {image.shape}", expected, "stack the images in this order"))
        if wrong := int(image.size - np.isfinite(image).sum()):
            found = f"{wrong} voxels that are NaN or infinite"
            problems.append(Problem("image", found, "finite values", "repair the image"))
        if not problems:
            empty = [name for name, channel in zip(self._channels, image, strict=True) if not channel.any()]
            problems += [Problem(f"image: {name}", "zero everywhere", "an image", "fetch it again") for name in empty]
        return problems


def _numbers(name: str, value: Any, problems: list[Problem]) -> np.ndarray | None:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        array = np.asarray(None)
    if array.dtype.kind in "biuf":
        return array
    problems.append(Problem(name, f"values of type {array.dtype}", "real numbers", "give an array of numbers"))
    return None


def _load_pyfunc(path: str) -> Segmentation:
    """What MLflow calls, with the model's folder on this machine."""
    return Segmentation(Path(path))
