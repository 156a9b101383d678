"""Estimators that take more than one pass, on the preprocessed grid: several predictions of a case as one.

Each has its own segmentation, of the mean probabilities, beside its maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from uncseg.config.sections import Estimators
from uncseg.estimators.several_passes import FoldNetwork, Passes, estimate_several_passes
from uncseg.method.inference.native_space import GridPrediction, NativePrediction, into_native, to_native
from uncseg.method.inference.predictor import UncertaintyPredictor


@dataclass(frozen=True)
class GridEstimate:
    """What an estimator says of a case, on the preprocessed grid."""

    logits: np.ndarray
    """Of the mean probabilities, (C, D, H, W) float32."""
    maps: dict[str, np.ndarray]
    """(D, H, W) float32 in [0, 1]."""


@dataclass(frozen=True)
class NativeEstimate:
    """The same in the case's own space."""

    prediction: NativePrediction
    maps: dict[str, np.ndarray]


@torch.inference_mode()
def estimate_grid(
    name: str, members: Sequence[UncertaintyPredictor], data: np.ndarray, estimators: Estimators
) -> GridEstimate:
    """Predict a preprocessed case as an estimator does.

    Args:
        name: one of ``estimators.several_pass``.
        members: networks of the same fold; an estimator that does not combine them takes the first.
        data: (channels, D, H, W).
        estimators: settings of the estimators.
    """
    passes = Passes(
        images=torch.from_numpy(np.asarray(data)),
        networks=[FoldNetwork(member.network, partial(_predict, member)) for member in members],
        output=members[0].output,
        settings=getattr(estimators, name),
        mirrored_axes=_mirrored_axes(members[0]),
        noise=torch.Generator().manual_seed(0),
    )
    moments, maps = estimate_several_passes(name, passes)
    return GridEstimate(moments.logits.numpy(), {key: value.float().numpy() for key, value in maps.items()})


def _predict(predictor: UncertaintyPredictor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits of one pass over a volume, (C, D, H, W), and their log-variance, (D, H, W), if any; on the CPU."""
    logits = predictor.predict_sliding_window_return_logits(images).cpu()
    log_variance = predictor.maps.get("log_variance")
    return logits, None if log_variance is None else log_variance.cpu()


def _mirrored_axes(predictor: UncertaintyPredictor) -> list[int]:
    """Axes of (C, D, H, W) that the network has seen mirrored."""
    first = 4 - len(predictor.configuration_manager.patch_size)  # a 2D network's are those of a slice
    return [axis + first for axis in predictor.allowed_mirroring_axes or ()]


def estimate_into_native(
    estimate: GridEstimate, predictor: UncertaintyPredictor, properties: dict, threads: int
) -> NativeEstimate:
    """An estimate in the case's own space; arguments as :func:`~uncseg.method.inference.native_space.into_native`."""
    prediction = into_native(GridPrediction(estimate.logits, None), predictor, properties, threads)
    maps = to_native(np.stack(list(estimate.maps.values())), properties, predictor)
    return NativeEstimate(prediction, dict(zip(estimate.maps, maps, strict=True)))
