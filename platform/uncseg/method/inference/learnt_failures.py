"""What a fold of a model has learnt from failures of the other folds, and what that says of its predictions.

It is kept as the probability of each region, corrected: it is smooth where the probability of a failure jumps between
one decision and the other, it can be averaged over folds, and it judges any decision.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.estimators.registry import CALIBRATED, CROSS_FITTED
from uncseg.files import file_digest
from uncseg.layout import FAILURES
from uncseg.method.failures.failure_model import FailureModel
from uncseg.method.failures.margins import about_decisions
from uncseg.method.inference.decisions import Decisions
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, NativePrediction, native_maps


@dataclass(frozen=True)
class LearntFailures:
    """What a fold has learnt, and the model whose predictions it judges."""

    model: ModelFolder
    learnt: FailureModel

    @classmethod
    def of(cls, model: ModelFolder, fold: int) -> "LearntFailures | None":
        """Read what a fold has learnt; None where it has learnt nothing.

        Raises:
            ProblemsFound: the file cannot be read.
        """
        file = model.root / f"fold_{fold}" / FAILURES
        return cls(model, _loaded(file, file.stat().st_mtime_ns)) if file.is_file() else None

    def on_grid(self, data: np.ndarray, grid: GridPrediction, tile_step: float) -> np.ndarray | None:
        """Return the probability of each region by more than calibrated p, (R, D, H, W) float32; None without.

        Args:
            data: the preprocessed case, (C, D, H, W).
            grid: its prediction by the fold.
            tile_step: in patch sizes.
        """
        own = Decisions.of_grid(grid, self.model)
        found = self.learnt.failures(np.asarray(data), own.logits, own.chosen, tile_step)
        return None if found is None else corrected(found, own.chosen)

    def natively(
        self, on_grid: np.ndarray | None, native: NativePrediction, properties: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        """Return the probability of each region by estimator, (R, D, H, W) float32, in the case's own space.

        Args:
            on_grid: from :meth:`on_grid`.
            native: the fold's prediction.
            properties: nnU-Net's, of the case.
        """
        own = Decisions.of(native.probabilities, native.labels, self.model)
        found = {CALIBRATED: corrected(self.learnt.calibrated(own.logits, own.chosen), own.chosen)}
        if on_grid is not None:
            named = {str(region): values for region, values in enumerate(on_grid)}
            found[CROSS_FITTED] = np.stack(list(native_maps(named, properties, self.model).values()))
        return found


def corrected(failures: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the probability of regions, from P(the decision on them is wrong)."""
    return about_decisions(failures, chosen, np.zeros_like(chosen)).astype(np.float32)


def failures_of(probabilities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return P(a decision is wrong), float32, from the corrected probability of what is decided on; any shape."""
    return about_decisions(probabilities, np.zeros_like(chosen), chosen).astype(np.float32)


def failure_digest(model: ModelFolder, fold: int) -> str:
    """Return a digest of what a fold has learnt; empty where it has learnt nothing."""
    file = model.root / f"fold_{fold}" / FAILURES
    return _digest_of(file, file.stat().st_mtime_ns) if file.is_file() else ""


@lru_cache(maxsize=64)
def _digest_of(file: Path, _time_ns: int) -> str:
    return file_digest(file)


@lru_cache(maxsize=16)  # all folds of a run predict a new case
def _loaded(file: Path, _time_ns: int) -> FailureModel:
    return FailureModel.load(file)
