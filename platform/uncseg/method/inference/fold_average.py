"""Several folds' predictions of one case as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uncseg.method.inference.label_meaning import as_brats, region_probabilities
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, into_native, of_decision


@dataclass(frozen=True)
class FoldAverage:
    """What the folds say together, native space, (D, H, W); each alone where it is scored."""

    labels: np.ndarray
    """Of BraTS 2023, from the folds' mean probabilities."""
    probabilities: np.ndarray
    """Mean of WT, TC, ET, (3, D, H, W) float32 in [0, 1]."""
    max_probability: np.ndarray
    """Of the decision by the mean probabilities, float32."""
    between_folds: np.ndarray
    """Standard deviation (population) of p(WT) over the folds, in [0, 0.5]."""
    uncertainty: np.ndarray | None
    """Mean, unmasked, float32 in [0, 1]; None where the networks have no head."""
    alone: tuple[tuple[np.ndarray, np.ndarray | None], ...]
    """(labels, uncertainty) of each fold."""


def average(model: ModelFolder, grids: Sequence[GridPrediction], properties: dict[str, Any]) -> FoldAverage:
    """Bring each fold's outputs into native space and average probabilities and uncertainty."""
    total: np.ndarray | None = None
    doubt: np.ndarray | None = None
    p_wt, alone = [], []
    foreground = model.label_manager.foreground_regions if model.label_manager.has_regions else []
    foreground = foreground or model.label_manager.foreground_labels
    for grid in grids:
        one = into_native(grid, model, properties, 1)
        total = one.probabilities if total is None else total + one.probabilities
        p_wt.append(region_probabilities(one.probabilities, foreground, model.meaning)[0])
        if one.uncertainty is not None:
            doubt = one.uncertainty if doubt is None else doubt + one.uncertainty
        alone.append((as_brats(one.labels, model.meaning), one.uncertainty))
    assert total is not None
    probabilities = total / len(grids)
    of_regions = region_probabilities(probabilities, foreground, model.meaning)
    return FoldAverage(
        as_brats(np.asarray(model.label_manager.convert_probabilities_to_segmentation(probabilities)), model.meaning),
        of_regions,
        of_decision(probabilities, of_regions[0], model.label_manager.has_regions),
        np.std(p_wt, axis=0),
        None if doubt is None else doubt / len(grids),
        tuple(alone),
    )
