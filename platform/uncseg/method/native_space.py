"""From the preprocessed grid, where networks work, back to a case's own space, where people look."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from uncseg.method.predictor import UncertaintyPredictor


@dataclass(frozen=True)
class NativePrediction:
    """One network's outputs for a case, in its own space."""

    labels: np.ndarray
    """(D, H, W), nnU-Net's own decision."""
    probabilities: np.ndarray
    """(C, D, H, W): of the classes, background first, or of the regions WT, TC, ET."""
    uncertainty: np.ndarray | None
    """(D, H, W) float32 in [0, 1], unmasked; None for a network without the head."""


def predict_native(
    predictor: UncertaintyPredictor, data: np.ndarray, properties: dict, threads: int
) -> NativePrediction:
    """Predict a preprocessed case.

    Args:
        predictor: with a fold's network loaded.
        data: (C, D, H, W), preprocessed.
        properties: nnU-Net's, of the case.
        threads: for torch.
    """
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(data))).cpu()
    labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.float(),
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.label_manager,
        properties,
        return_probabilities=True,
        num_threads_torch=threads,
    )
    uncertainty = None
    if predictor.uncertainty is not None:
        (uncertainty,) = to_native(predictor.uncertainty.cpu().numpy()[None], properties, predictor)
    return NativePrediction(labels, probabilities, uncertainty)


def to_native(volume: np.ndarray, properties: dict, predictor: UncertaintyPredictor) -> np.ndarray:
    """Bring maps from the preprocessed grid to the case's native one.

    Args:
        volume: (C, D, H, W) float32 in [0, 1] on the preprocessed grid.
        properties: nnU-Net's, of the case.

    Returns:
        (C, D, H, W) float32 in [0, 1] in native axis order; 0 outside the part that nnU-Net cropped to.
    """
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    spacing = [properties["spacing"][i] for i in plans.transpose_forward]
    current: Any = configuration.spacing
    if len(current) < len(spacing):  # a 2D configuration leaves the spacing between slices alone
        current = [spacing[0], *current]
    shape = properties["shape_after_cropping_and_before_resampling"]
    resampled = np.asarray(configuration.resampling_fn_probabilities(volume, shape, current, spacing))
    native = np.zeros((len(volume), *properties["shape_before_cropping"]), dtype=np.float32)
    box = tuple(slice(lower, upper) for lower, upper in properties["bbox_used_for_cropping"])
    native[(slice(None), *box)] = resampled
    return native.transpose([0, *[i + 1 for i in plans.transpose_backward]]).clip(0, 1)
