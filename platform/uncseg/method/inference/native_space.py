"""Predictions on the preprocessed grid, where networks work, and in a case's own space, where people look at them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from uncseg.dataset.finite import require_finite
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.predictor import UncertaintyPredictor

HasManagers = UncertaintyPredictor | ModelFolder
"""A model with nnU-Net's managers of plans, configuration and labels: loaded, or its folder alone."""


@dataclass(frozen=True)
class GridPrediction:
    """What is predicted for a case on the preprocessed grid, by one network or by an estimator of several passes."""

    logits: np.ndarray
    """(C, D, H, W): float16, as nnU-Net's predictor leaves them, or those of an estimator's mean probabilities."""
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    """By name, (D, H, W) float32 in [0, 1], unmasked; ``uncertainty`` of a network with the head."""
    corrected: np.ndarray | None = None
    """Probability of each region by what the fold has learnt beyond calibrated p; None without."""


@dataclass(frozen=True)
class NativePrediction:
    """What is predicted for a case, in its own space."""

    labels: np.ndarray
    """(D, H, W), nnU-Net's own decision."""
    probabilities: np.ndarray
    """(C, D, H, W): of the classes, background first, or of the regions."""
    maps: dict[str, np.ndarray]
    """By name, (D, H, W) float32 in [0, 1], unmasked."""


def predict_grid(predictor: UncertaintyPredictor, data: np.ndarray) -> GridPrediction:
    """Predict a preprocessed case, (C, D, H, W), with the network that is loaded."""
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(data))).cpu().numpy()
    head = predictor.maps.get("uncertainty")
    return GridPrediction(logits, {} if head is None else {"uncertainty": head.cpu().numpy()})


def decision_probability(probabilities: np.ndarray, p_main: np.ndarray, regions: bool) -> np.ndarray:
    """Return the probability of each voxel's decision, (D, H, W) float32; with regions, of the main one or not.

    The probabilities are (C, D, H, W), as in :class:`NativePrediction`; p(main region) is (D, H, W).
    """
    most = np.maximum(p_main, 1 - p_main) if regions else probabilities.max(0)
    outside = probabilities.sum(0) == 0  # beyond nnU-Net's crop: certainly background
    return np.where(outside, 1, most).astype(np.float32)


def native_prediction(grid: GridPrediction, model: HasManagers, properties: dict, threads: int) -> NativePrediction:
    """Bring a prediction of a model into the case's own space, by nnU-Net's properties of the case.

    Raises:
        NotFinite: probabilities or maps are not finite.
    """
    logits = torch.from_numpy(grid.logits.astype(np.float32))
    managers = model.plans_manager, model.configuration_manager, model.label_manager
    labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, *managers, properties, return_probabilities=True, num_threads_torch=threads
    )
    require_finite(probabilities, "probabilities in the case's own space", "report it with the case's images")
    return NativePrediction(labels, probabilities, native_maps(grid.maps, properties, model))


def native_maps(maps: dict[str, np.ndarray], properties: dict, model: HasManagers) -> dict[str, np.ndarray]:
    """Bring maps from the grid that a model's plans gave a case into the case's own space.

    Maps are (D, H, W) float32 in [0, 1], by name; those returned have the image's axis order, and 0 beyond nnU-Net's
    crop.

    Raises:
        NotFinite: naming a map that is not finite.
    """
    if not maps:
        return {}
    for name, values in maps.items():
        require_finite(values, f"map {name}", "restore the fold's files, or train the fold again")
    plans, configuration = model.plans_manager, model.configuration_manager
    spacing = [properties["spacing"][i] for i in plans.transpose_forward]
    current: Any = configuration.spacing
    if len(current) < len(spacing):  # a 2D configuration leaves the spacing between slices alone
        current = [spacing[0], *current]
    shape = properties["shape_after_cropping_and_before_resampling"]
    volume = np.stack(list(maps.values()))
    resampled = np.asarray(configuration.resampling_fn_probabilities(volume, shape, current, spacing))
    native = np.zeros((len(volume), *properties["shape_before_cropping"]), dtype=np.float32)
    box = tuple(slice(lower, upper) for lower, upper in properties["bbox_used_for_cropping"])
    native[(slice(None), *box)] = resampled
    native = native.transpose([0, *[i + 1 for i in plans.transpose_backward]]).clip(0, 1)
    return dict(zip(maps, native, strict=True))
