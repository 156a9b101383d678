"""The fold average: several folds' predictions of one case as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uncseg.estimators.chosen_map import MapChoice, chosen_map
from uncseg.estimators.registry import HEAD
from uncseg.method.inference.label_meaning import region_probabilities, renumbered
from uncseg.method.inference.learnt_failures import LearntFailures, failures_of
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, decision_probability, native_prediction
from uncseg.tasks.task import Task


@dataclass(frozen=True)
class FoldAverage:
    """What the folds predict on average, (D, H, W) in the case's own space, and what each predicts."""

    labels: np.ndarray
    """Labels as the task numbers them, from the folds' mean probabilities."""
    probabilities: np.ndarray
    """Mean of the task's regions, (R, D, H, W) float32 in [0, 1]."""
    p_main: np.ndarray
    """That of the main region, (D, H, W)."""
    max_probability: np.ndarray
    """Probability of the decision by the mean probabilities, float32."""
    between_folds: np.ndarray
    """Standard deviation (population) of ``p_main`` over the folds, in [0, 0.5]."""
    uncertainty: np.ndarray | None
    """Mean of the heads' maps, unmasked, float32 in [0, 1]; None for networks without a head."""
    per_fold: tuple[tuple[np.ndarray, np.ndarray | None], ...]
    """Labels and uncertainty of each fold."""
    corrected: dict[str, np.ndarray]
    """Probabilities of the task's regions by estimator, as the folds correct them on average by what each has learnt
    from the others' failures, (R, D, H, W) float32; empty where a fold has learnt nothing."""

    def failures(self, task: Task, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return P(the decision on the main region is wrong) by each estimator that the folds have learnt, (D, H, W)
        float32 in [0, 1]. ``chosen``: the main region of ``labels``, bool."""
        main = list(task.regions).index(task.main_region)
        return {name: failures_of(values[main], chosen) for name, values in self.corrected.items()}

    def chosen_uncertainty(
        self, task: Task, chosen: np.ndarray, wanted: MapChoice | None
    ) -> tuple[MapChoice | None, np.ndarray | None]:
        """Return which map is the case's uncertainty, and the map, (D, H, W) float32, unmasked; None where none is.

        ``chosen`` as for :meth:`failures`, ``wanted`` as for :func:`~uncseg.estimators.chosen_map.chosen_map`.
        """
        return chosen_map({HEAD: self.uncertainty} | self.failures(task, chosen), wanted) or (None, None)


def average_folds(
    model: ModelFolder,
    grids: Sequence[GridPrediction],
    properties: dict[str, Any],
    learnt: Sequence[LearntFailures | None] = (),
) -> FoldAverage:
    """Bring each fold's prediction into the case's own space; average probabilities and uncertainty.

    Args:
        model: whose folds they are.
        grids: a prediction of each fold.
        properties: nnU-Net's, of the case.
        learnt: what each fold has learnt from failures; empty: that is left out.
    """
    total: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    p_main, per_fold = [], []
    sums: dict[str, list[Any]] = {}
    main = list(model.task.regions).index(model.task.main_region)
    # one at a time: each holds a volume per class
    for grid, own in zip(grids, learnt or [None] * len(grids), strict=True):
        native = native_prediction(grid, model, properties, 1)
        head = native.maps.get("uncertainty")
        total = native.probabilities if total is None else total + native.probabilities
        p_main.append(region_probabilities(native.probabilities, model.region_channels)[main])
        if head is not None:
            uncertainty = head if uncertainty is None else uncertainty + head
        if own is not None:
            for name, values in own.natively(grid.corrected, native, properties).items():
                before, count = sums.get(name, (0, 0))
                sums[name] = [before + values, count + 1]
        per_fold.append((renumbered(native.labels, model.meaning), head))
    assert total is not None
    probabilities = total / len(grids)
    regions = region_probabilities(probabilities, model.region_channels)
    labels = np.asarray(model.label_manager.convert_probabilities_to_segmentation(probabilities))
    return FoldAverage(
        renumbered(labels, model.meaning),
        regions,
        regions[main],
        decision_probability(probabilities, regions[main], model.label_manager.has_regions),
        np.std(p_main, axis=0),
        None if uncertainty is None else uncertainty / len(grids),
        tuple(per_fold),
        # of what all folds have learnt
        {name: values / np.float32(count) for name, (values, count) in sums.items() if count == len(grids)},
    )
