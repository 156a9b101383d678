"""The fold average: several folds' predictions of one case as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uncseg.method.inference.label_meaning import as_brats, region_probabilities
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, decision_probability, native_prediction


@dataclass(frozen=True)
class FoldAverage:
    """What the folds predict on average, (D, H, W) in the case's own space, and what each predicts."""

    labels: np.ndarray
    """Labels of BraTS 2023, from the folds' mean probabilities."""
    probabilities: np.ndarray
    """Mean of WT, TC, ET, (3, D, H, W) float32 in [0, 1]."""
    max_probability: np.ndarray
    """Probability of the decision by the mean probabilities, float32."""
    between_folds: np.ndarray
    """Standard deviation (population) of p(WT) over the folds, in [0, 0.5]."""
    uncertainty: np.ndarray | None
    """Mean of the heads' maps, unmasked, float32 in [0, 1]; None for networks without a head."""
    per_fold: tuple[tuple[np.ndarray, np.ndarray | None], ...]
    """Labels and uncertainty of each fold."""


def average_folds(model: ModelFolder, grids: Sequence[GridPrediction], properties: dict[str, Any]) -> FoldAverage:
    """Bring each fold's prediction into the case's own space; average probabilities and uncertainty."""
    total: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    p_wt, per_fold = [], []
    foreground = model.label_manager.foreground_regions if model.label_manager.has_regions else []
    foreground = foreground or model.label_manager.foreground_labels
    for grid in grids:  # one at a time: each holds a volume per class
        native = native_prediction(grid, model, properties, 1)
        head = native.maps.get("uncertainty")
        total = native.probabilities if total is None else total + native.probabilities
        p_wt.append(region_probabilities(native.probabilities, foreground, model.meaning)[0])
        if head is not None:
            uncertainty = head if uncertainty is None else uncertainty + head
        per_fold.append((as_brats(native.labels, model.meaning), head))
    assert total is not None
    probabilities = total / len(grids)
    regions = region_probabilities(probabilities, foreground, model.meaning)
    labels = np.asarray(model.label_manager.convert_probabilities_to_segmentation(probabilities))
    return FoldAverage(
        as_brats(labels, model.meaning),
        regions,
        decision_probability(probabilities, regions[0], model.label_manager.has_regions),
        np.std(p_wt, axis=0),
        None if uncertainty is None else uncertainty / len(grids),
        tuple(per_fold),
    )
