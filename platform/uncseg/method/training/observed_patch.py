"""One patch of a validation case, observed again and again while the network trains. The training stays as it is.

patch = choose_patch(cases_folder, validation_cases, patch_size, task)
observation = observe(trainer, patch)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.dataset.labels import in_main_region
from uncseg.dataset.prepared_cases import PreparedCases
from uncseg.method.loss.terms import dilate
from uncseg.method.memory.patch_geometry import PatchGeometry
from uncseg.method.network.logits import predicted_regions
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork, full_resolution
from uncseg.method.nnunet_internals import unwrapped
from uncseg.tasks.task import Task


@dataclass(frozen=True)
class ObservedPatch:
    """Which patch is observed, on the case's preprocessed grid."""

    folder: Path
    """The folder of the preprocessed cases."""
    case_id: str
    geometry: PatchGeometry
    """The patch's place; D = 1 with 2D patches. It reaches beyond a case that is smaller than the patch."""
    two_dimensional: bool


@dataclass(frozen=True)
class Observation:
    """What the patch shows: arrays (D, H, W) in the image's own axis order (2D: nnU-Net's), 0 beyond the case."""

    image: np.ndarray
    """The modality that the task shows, normalised."""
    reference: np.ndarray
    """Labels as the task numbers them."""
    prediction: np.ndarray
    error: np.ndarray
    """Error in the validation memory, in [0, 1]; 0 where never visited."""
    variance: np.ndarray
    uncertainty: np.ndarray | None
    """sigmoid(u) in the dilated prediction, or everywhere if nothing is predicted; None without a map."""


def choose_patch(folder: Path, case_ids: Sequence[str], patch_size: Sequence[int], task: Task) -> ObservedPatch | None:
    """Choose a patch around the main region of the first preprocessed case, by id, that has one; None if none has.

    A patch size (H, W) chooses a patch of the slice with most of it.
    """
    for case_id in sorted(case_ids):
        _, reference, _, _ = PreparedCases(str(folder), [case_id]).load_case(case_id)
        inside = in_main_region(reference[0], task)
        if inside.any():
            return _around(Path(folder), case_id, inside, patch_size)
    return None


def _around(folder: Path, case_id: str, inside: np.ndarray, patch_size: Sequence[int]) -> ObservedPatch:
    shape = [1] * (3 - len(patch_size)) + [int(n) for n in patch_size]
    centre = np.round(np.argwhere(inside).mean(0)).astype(int)
    if len(patch_size) == 2:
        centre[0] = inside.sum((1, 2)).argmax()
    lower = []
    for middle, size, voxels in zip(centre, shape, inside.shape, strict=True):
        spare = voxels - size
        lower.append(int(np.clip(middle - size // 2, 0, spare)) if spare >= 0 else spare // 2)
    return ObservedPatch(folder, case_id, PatchGeometry.from_crop(lower, shape, inside.shape), len(patch_size) == 2)


def observe(trainer: Any, patch: ObservedPatch) -> Observation:
    """Predict the patch without gradients, and read what the validation memory holds of it.

    The trainer is an initialised ``UncertaintyTrainer``, and the patch shows a validation case of its fold. This draws
    no random number, waits for no other process, and leaves the network in its mode.
    """
    data, reference, _, _ = PreparedCases(str(patch.folder), [patch.case_id]).load_case(patch.case_id)
    inside, padded = patch.geometry.bounding_box(), patch.geometry.padded
    image = padded(np.asarray(data[(slice(None), *inside)], dtype=np.float32))
    x = torch.from_numpy(image)[None].to(trainer.device)
    prediction, u = _predict(trainer, x[:, :, 0] if patch.two_dimensional else x)
    memory = trainer.memories["validation"].read_box(patch.case_id, inside)
    labels = padded(np.asarray(reference[(0, *inside)])).clip(0)  # nnU-Net sets what it cropped away to −1
    error, variance = (padded(memory.values[name][0, 0].cpu().numpy()) for name in ("error", "variance"))
    order = (0, 1, 2) if patch.two_dimensional else trainer.plans_manager.transpose_backward

    def turned(part: np.ndarray) -> np.ndarray:
        return part.reshape(patch.geometry.shape).transpose(order)

    return Observation(
        image=turned(image[trainer.settings.task.shown_channel]),
        reference=turned(labels.astype(np.uint8)),
        prediction=turned(prediction),
        error=turned(error),
        variance=turned(variance),
        uncertainty=None if u is None else turned(u),
    )


def _predict(trainer: Any, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return labels and uncertainty of one sample, each with the sample's voxels."""
    network = unwrapped(trainer.network)  # a wrapped one waits for other processes, or is compiled anew
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
    logits = full_resolution(output).detach()
    on_host = logits[0].float().cpu()  # nnU-Net takes no other device, and no bfloat16
    labels = np.asarray(trainer.label_manager.convert_logits_to_segmentation(on_host)).astype(np.uint8)
    if u is None:
        return labels, None
    uncertainty = u[0, 0].float().sigmoid()
    predicted = predicted_regions(logits, trainer.outputs)[:, trainer.main]
    if predicted.any():
        uncertainty = uncertainty * dilate(predicted)[0, 0]
    return labels, uncertainty.cpu().numpy()
