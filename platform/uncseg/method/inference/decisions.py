"""What a segmentation says of each region: how likely it is, and what was decided."""

from dataclasses import dataclass

import numpy as np
import torch

from uncseg.method.failures.margins import clipped_logit
from uncseg.method.inference.label_meaning import region_probabilities
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction


@dataclass(frozen=True)
class Decisions:
    """What a segmentation says of each region (R, D, H, W)."""

    logits: np.ndarray
    """Of the probabilities, float32 within ±9.2."""
    chosen: np.ndarray
    """bool"""

    @classmethod
    def of_grid(cls, grid: GridPrediction, model: ModelFolder) -> "Decisions":
        """Read them from a prediction of a model on the preprocessed grid."""
        logits = torch.from_numpy(grid.logits.astype(np.float32))
        probabilities = model.label_manager.apply_inference_nonlin(logits)
        labels = np.asarray(model.label_manager.convert_probabilities_to_segmentation(probabilities))
        return cls.of(probabilities.numpy(), labels, model)

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray, model: ModelFolder) -> "Decisions":
        """Read them from probabilities of a model's channels, (C, D, H, W), and its labels, (D, H, W)."""
        regions = region_probabilities(probabilities, model.region_channels)
        own = {number: label for label, number in model.meaning.items()}
        chosen = [np.isin(labels, [own[number] for number in numbers]) for numbers in model.task.numbers.values()]
        # half precision, as it is kept
        return cls(clipped_logit(regions).astype(np.float16).astype(np.float32), np.stack(chosen))
