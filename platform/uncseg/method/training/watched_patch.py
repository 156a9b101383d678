"""One patch of a validation case, looked at again and again while the network trains. Changes nothing of the training.

patch = watched_patch(cases_folder, validation_cases, patch_size)
shown = observe(trainer, patch)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from uncseg.method.loss.terms import dilate
from uncseg.method.memory.patch_geometry import Box
from uncseg.method.network.uncertainty_network import (
    MaskedUncertaintyNetwork,
    full_resolution,
    masked_uncertainty,
    predicted_regions,
    unwrapped,
)

FLAIR = 3
"""Its channel."""


@dataclass(frozen=True)
class WatchedPatch:
    """Where to look, on the case's preprocessed grid."""

    folder: Path
    """The preprocessed cases'."""
    case_id: str
    lower: tuple[int, int, int]
    """The patch's first voxel; may lie before the case's, where the case is smaller than the patch."""
    shape: tuple[int, int, int]
    """Voxels, (D, H, W); D = 1 with 2D patches."""
    two_dimensional: bool


@dataclass(frozen=True)
class Observation:
    """What the patch shows; arrays (D, H, W) in the image's own axis order (2D: nnU-Net's), 0 beyond the case."""

    image: np.ndarray
    """FLAIR, normalised."""
    reference: np.ndarray
    """Labels 1 NCR, 2 ED, 3 ET."""
    prediction: np.ndarray
    error: np.ndarray
    """Of the validation memory, in [0, 1]; 0 where never visited."""
    variance: np.ndarray
    uncertainty: np.ndarray | None
    """sigmoid(u) in the dilated prediction, all of it where nothing is predicted; None without the head."""


def watched_patch(folder: Path, case_ids: Sequence[str], patch_size: Sequence[int]) -> WatchedPatch | None:
    """A patch around the tumour of the first case, by id, that has one; None where none has.

    Args:
        folder: of the preprocessed cases.
        case_ids: validation cases of a fold.
        patch_size: (D, H, W), or (H, W): then the slice with most tumour.
    """
    for case_id in sorted(case_ids):
        _, reference, _, _ = nnUNetDatasetBlosc2(str(folder), [case_id]).load_case(case_id)
        tumour = np.asarray(reference[0]) > 0
        if tumour.any():
            return _around(Path(folder), case_id, tumour, patch_size)
    return None


def _around(folder: Path, case_id: str, tumour: np.ndarray, patch_size: Sequence[int]) -> WatchedPatch:
    shape = [1] * (3 - len(patch_size)) + [int(n) for n in patch_size]
    centre = np.round(np.argwhere(tumour).mean(0)).astype(int)
    if len(patch_size) == 2:
        centre[0] = tumour.sum((1, 2)).argmax()
    lower = []
    for middle, size, voxels in zip(centre, shape, tumour.shape, strict=True):
        spare = voxels - size
        lower.append(int(np.clip(middle - size // 2, 0, spare)) if spare >= 0 else spare // 2)
    d, h, w = shape
    return WatchedPatch(folder, case_id, (lower[0], lower[1], lower[2]), (d, h, w), len(patch_size) == 2)


def observe(trainer: Any, patch: WatchedPatch) -> Observation:
    """One forward pass without gradients, and what the validation memory holds of the patch.

    No random number is drawn and no other process is waited for; the network is left in the mode it was in.

    Args:
        trainer: an initialised :class:`~uncseg.method.training.trainer.UncertaintyTrainer`.
        patch: of a validation case of its fold.
    """
    data, reference, _, _ = nnUNetDatasetBlosc2(str(patch.folder), [patch.case_id]).load_case(patch.case_id)
    inside, place = _boxes(patch, data.shape[1:])

    def placed(part: np.ndarray) -> np.ndarray:
        whole = np.zeros((*part.shape[:-3], *patch.shape), dtype=part.dtype)
        whole[(..., *place)] = part
        return whole

    image = placed(np.asarray(data[(slice(None), *inside)], dtype=np.float32))
    x = torch.from_numpy(image)[None].to(trainer.device)
    prediction, u = _predict(trainer, x[:, :, 0] if patch.two_dimensional else x)
    known = trainer.memories["validation"].read_box(patch.case_id, inside)
    labels = placed(np.asarray(reference[(0, *inside)])).clip(0)  # nnU-Net marks what it cropped away with −1
    error, variance = (placed(known.values[name][0, 0].cpu().numpy()) for name in ("error", "variance"))
    order = (0, 1, 2) if patch.two_dimensional else trainer.plans_manager.transpose_backward

    def turned(part: np.ndarray) -> np.ndarray:
        return part.reshape(patch.shape).transpose(order)

    return Observation(
        image=turned(image[FLAIR]),
        reference=turned(labels.astype(np.uint8)),
        prediction=turned(prediction),
        error=turned(error),
        variance=turned(variance),
        uncertainty=None if u is None else turned(u),
    )


def _boxes(patch: WatchedPatch, case_shape: Sequence[int]) -> tuple[Box, Box]:
    """The part of the case that the patch shows, and where it lies in the patch."""
    inside, place = [], []
    for first, size, voxels in zip(patch.lower, patch.shape, case_shape, strict=True):
        start, stop = max(first, 0), min(first + size, voxels)
        inside.append(slice(start, stop))
        place.append(slice(start - first, stop - first))
    return (inside[0], inside[1], inside[2]), (place[0], place[1], place[2])


def _predict(trainer: Any, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels and uncertainty of one sample, each with the sample's voxels."""
    network = unwrapped(trainer.network)  # nothing waits, or is compiled anew for one sample
    mode = network.training
    network.eval()
    try:
        with torch.no_grad(), trainer.autocast():
            if isinstance(network, MaskedUncertaintyNetwork):
                output, u = network(x, uncertainty=True)
            else:
                output, u = network(x), None
    finally:
        network.train(mode)
    wt, tc, et = predicted_regions(full_resolution(output).detach(), trainer.settings.model.output)[0]
    labels = torch.where(et, 3, torch.where(tc, 1, torch.where(wt, 2, 0))).to(torch.uint8).cpu().numpy()
    if u is None:
        return labels, None
    around = dilate(wt[None, None]) if wt.any() else None
    return labels, masked_uncertainty(u, around)[0, 0].cpu().numpy()
