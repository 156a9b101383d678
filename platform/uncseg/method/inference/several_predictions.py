"""Estimators that take more than one pass, on the preprocessed grid: several predictions of a case as one.

Each has its own segmentation, of the mean probabilities, beside its maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from uncseg.config.sections import Estimators
from uncseg.estimators.augmentation import sample_changes
from uncseg.estimators.deep_ensemble import combine_members
from uncseg.estimators.heteroscedastic import combine_draws, mean_of_draws, sample_logits
from uncseg.estimators.mc_dropout import sample_dropout
from uncseg.estimators.moments import Moments, class_probabilities
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
        name: one of ``estimators.sampled``.
        members: networks of the same fold; all but the ensemble take the first.
        data: (channels, D, H, W).
        estimators: how many samples, and how they are drawn.
    """
    predictor, images = members[0], torch.from_numpy(np.asarray(data))
    moments = Moments(predictor.output)
    # goes on from pass to pass: equal draws would never average out
    noise = torch.Generator().manual_seed(0)
    if name == "deep_ensemble":
        maps = combine_members((_probabilities(member, images, noise) for member in members), moments)
    elif name == "mc_dropout":
        assert estimators.mc_dropout is not None
        dropout = estimators.mc_dropout
        maps = sample_dropout(
            predictor.network, lambda: _probabilities(predictor, images, noise), dropout.samples, dropout.seed, moments
        )
    elif name == "augmentation":
        assert estimators.augmentation is not None
        axes = _mirrored_axes(predictor)
        maps = sample_changes(
            lambda x: _probabilities(predictor, x, noise), images, axes, estimators.augmentation, moments
        )
    else:
        assert estimators.heteroscedastic is not None
        settings = estimators.heteroscedastic
        logits = predictor.predict_sliding_window_return_logits(images).cpu()
        generator = torch.Generator().manual_seed(settings.seed)
        draws = sample_logits(logits, _log_variance(predictor), settings.samples, predictor.output, generator)
        maps = combine_draws(draws, moments)
    return GridEstimate(moments.logits.numpy(), {key: value.float().numpy() for key, value in maps.items()})


def _probabilities(predictor: UncertaintyPredictor, images: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Of one pass over a volume, (C, D, H, W) on the CPU; of a heteroscedastic network the mean over a few draws."""
    logits = predictor.predict_sliding_window_return_logits(images).cpu()
    if "log_variance" not in predictor.maps:
        return class_probabilities(logits, predictor.output)
    return mean_of_draws(logits, _log_variance(predictor), predictor.output, noise)


def _log_variance(predictor: UncertaintyPredictor) -> torch.Tensor:
    return predictor.maps["log_variance"].cpu()


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
