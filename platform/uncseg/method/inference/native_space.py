"""From the preprocessed grid, where networks work, back to a case's own space, where people look."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

from uncseg.method.inference.predictor import UncertaintyPredictor


class Described(Protocol):
    """What nnU-Net knows of a model: a predictor, or a model folder without its networks."""

    @property
    def plans_manager(self) -> Any: ...  # noqa: D102
    @property
    def configuration_manager(self) -> Any: ...  # noqa: D102
    @property
    def label_manager(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class GridPrediction:
    """One network's outputs for a case, on the preprocessed grid."""

    logits: np.ndarray
    """(C, D, H, W) float16, as nnU-Net's predictor leaves them."""
    uncertainty: np.ndarray | None
    """(D, H, W) float32 in [0, 1], unmasked; None for a network without the head."""


@dataclass(frozen=True)
class NativePrediction:
    """One network's outputs for a case, in its own space."""

    labels: np.ndarray
    """(D, H, W), nnU-Net's own decision."""
    probabilities: np.ndarray
    """(C, D, H, W): of the classes, background first, or of the regions WT, TC, ET."""
    uncertainty: np.ndarray | None
    """(D, H, W) float32 in [0, 1], unmasked; None for a network without the head."""


def predict_grid(predictor: UncertaintyPredictor, data: np.ndarray) -> GridPrediction:
    """Predict a preprocessed case, (C, D, H, W), with the network that is loaded."""
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(data))).cpu().numpy()
    uncertainty = None if predictor.uncertainty is None else predictor.uncertainty.cpu().numpy()
    return GridPrediction(logits, uncertainty)


def of_decision(probabilities: np.ndarray, p_wt: np.ndarray, regions: bool) -> np.ndarray:
    """Probability of each voxel's decision, (D, H, W) float32; where regions are predicted, of tumour or none.

    Args:
        probabilities: (C, D, H, W), as :class:`NativePrediction` has them.
        p_wt: of the whole tumour, (D, H, W).
        regions: whether they are of regions.
    """
    most = np.maximum(p_wt, 1 - p_wt) if regions else probabilities.max(0)
    outside = probabilities.sum(0) == 0  # beyond nnU-Net's crop: certainly background
    return np.where(outside, 1, most).astype(np.float32)


def into_native(grid: GridPrediction, model: Described, properties: dict, threads: int) -> NativePrediction:
    """A prediction in the case's own space.

    Args:
        grid: of :func:`predict_grid`.
        model: that it comes from.
        properties: nnU-Net's, of the case.
        threads: for torch.
    """
    labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(grid.logits.astype(np.float32)),
        model.plans_manager,
        model.configuration_manager,
        model.label_manager,
        properties,
        return_probabilities=True,
        num_threads_torch=threads,
    )
    uncertainty = None if grid.uncertainty is None else to_native(grid.uncertainty[None], properties, model)[0]
    return NativePrediction(labels, probabilities, uncertainty)


def to_native(volume: np.ndarray, properties: dict, model: Described) -> np.ndarray:
    """Bring maps from the preprocessed grid to the case's native one.

    Args:
        volume: (C, D, H, W) float32 in [0, 1] on the preprocessed grid.
        properties: nnU-Net's, of the case.
        model: whose plans the case was preprocessed with.

    Returns:
        (C, D, H, W) float32 in [0, 1] in native axis order; 0 outside the part that nnU-Net cropped to.
    """
    plans, configuration = model.plans_manager, model.configuration_manager
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
