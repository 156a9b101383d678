"""Estimators of several passes on whole cases, as the out-of-fold evaluation and ``predict`` use them."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from uncseg.config.sections import Estimators
from uncseg.estimators.several_passes import FoldNetwork, Passes, estimate_several_passes
from uncseg.method.inference.native_space import GridPrediction
from uncseg.method.inference.predictor import UncertaintyPredictor


@torch.inference_mode()
def estimate_grid(
    name: str, members: Sequence[UncertaintyPredictor], data: np.ndarray, estimators: Estimators
) -> GridPrediction:
    """Predict a preprocessed case, (channels, D, H, W), as one of ``estimators.several_pass`` does.

    Return its maps, and the logits of its mean probabilities. The members are networks of the same fold; an estimator
    that does not combine them takes the first.
    """
    passes = Passes(
        images=torch.from_numpy(np.asarray(data)),
        networks=[FoldNetwork(member.network, partial(_predict, member)) for member in members],
        outputs=members[0].outputs,
        settings=getattr(estimators, name),
        mirrored_axes=_mirrored_axes(members[0]),
        noise=torch.Generator().manual_seed(0),
    )
    moments, maps = estimate_several_passes(name, passes)
    return GridPrediction(moments.logits.numpy(), {key: value.float().numpy() for key, value in maps.items()})


def _predict(predictor: UncertaintyPredictor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logits of one pass over a volume, (C, D, H, W), and any log-variance, (D, H, W), on the CPU."""
    logits = predictor.predict_sliding_window_return_logits(images).cpu()
    log_variance = predictor.maps.get("log_variance")
    return logits, None if log_variance is None else log_variance.cpu()


def _mirrored_axes(predictor: UncertaintyPredictor) -> list[int]:
    """Return the axes of (C, D, H, W) that the network has seen mirrored."""
    first = 4 - len(predictor.configuration_manager.patch_size)  # a 2D network's axes are those of a slice
    return [axis + first for axis in predictor.allowed_mirroring_axes or ()]
