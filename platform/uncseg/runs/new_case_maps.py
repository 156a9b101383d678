"""Maps of a new case that need no pass of their own: by its folds' mean probabilities and what they have learnt."""

import numpy as np

from uncseg.estimators.one_pass import OnePass, estimate_one_pass
from uncseg.evaluation.overlap import region_mask
from uncseg.layout import learnt_map
from uncseg.method.inference.fold_average import FoldAverage
from uncseg.method.inference.learnt_failures import failures_of
from uncseg.runs.fold_prediction import as_batch
from uncseg.runs.model_sources import PredictionModel


def one_pass_maps(model: PredictionModel, folds: FoldAverage, predicted_main: np.ndarray) -> dict[str, np.ndarray]:
    """Return the maps that the folds' mean probabilities give, (D, H, W) float32."""
    volumes = {"p_main": folds.p_main, "max_probability": folds.max_probability, "predicted_main": predicted_main}
    volumes |= folds.failures(model.task, predicted_main)
    known = OnePass(**{name: as_batch(volume) for name, volume in volumes.items()})
    maps = estimate_one_pass(model.evaluation.estimators.one_pass, known)
    return {name: values[0, 0].numpy() for name, values in maps.items()}


def maps_of_regions(model: PredictionModel, folds: FoldAverage) -> dict[str, np.ndarray]:
    """Return, for each region but the main one, P(the decision on it is wrong) by what the folds have learnt."""
    task, maps = model.task, {}
    for name in model.evaluation.estimators.one_pass:
        for region, p in zip(task.regions, folds.corrected.get(name, ()), strict=False):
            if region != task.main_region:
                chosen = region_mask(folds.labels, region, task)
                maps[learnt_map(task, region, name)] = failures_of(p, chosen)
    return maps
