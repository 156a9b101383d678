"""Failure maps of a whole case, tile by tile."""

import itertools

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from uncseg.method.failures.failure_network import FailureNetwork
from uncseg.method.failures.margins import LARGEST_LOGIT


@torch.inference_mode()
def failure_map(
    network: FailureNetwork, images: np.ndarray, logits: np.ndarray, decisions: np.ndarray, tile_step: float = 0.5
) -> np.ndarray:
    """Return P(wrong) of each region's decision, (R, D, H, W) float32, from tiles' logits, weighted by a Gaussian.

    Args:
        network: on the device that computes.
        images: (C, D, H, W) on the preprocessed grid.
        logits, decisions: of the regions, (R, D, H, W), see :meth:`FailureNetwork.forward`.
        tile_step: in patch sizes.
    """
    network.eval()
    device, shape = next(network.parameters()).device, decisions.shape[1:]
    room = [(0, 0), *((0, max(0, length - n)) for length, n in zip(network.patch, shape, strict=True))]
    whole = [
        torch.from_numpy(np.pad(array, room, constant_values=beyond)).to(device)
        for array, beyond in (
            (images.astype(np.float32), 0),
            (logits.astype(np.float32), -LARGEST_LOGIT),
            (decisions, False),
        )
    ]
    padded = whole[1].shape[1:]
    total, weight = torch.zeros_like(whole[1]), torch.zeros(padded, device=device)
    gaussian = compute_gaussian(network.patch, 1 / 8, 10, torch.float32, device)
    for corner in itertools.product(*compute_steps_for_sliding_window(tuple(padded), network.patch, tile_step)):
        box = tuple(slice(first, first + length) for first, length in zip(corner, network.patch, strict=True))
        total[(slice(None), *box)] += network(*(tensor[(slice(None), *box)][None] for tensor in whole))[0] * gaussian
        weight[box] += gaussian
    found = (total / weight).sigmoid().cpu().numpy()
    return found[(slice(None), *(slice(0, n) for n in shape))]
