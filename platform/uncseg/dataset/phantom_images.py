"""The images of a phantom: they fade across borders as the probability of a label does, so that a network can see where
raters disagree."""

from collections.abc import Mapping

import numpy as np

from uncseg.dataset.phantom_anatomy import Anatomy, smooth_field
from uncseg.tasks.task import Task

BRIGHTNESS = 1000
BRATS = ("t1n", "t1c", "t2w", "t2f")
TISSUES = {
    "oedema": (-0.25, -0.1, 0.6, 0.8),
    "enhancing": (-0.35, 1.0, 0.4, 0.6),
    "necrosis": (-0.5, -0.3, 0.9, 0.1),
    "solid": (-0.3, 0.1, 0.5, 0.3),
    "fluid": (-0.6, -0.5, 1.2, -0.5),
}
"""Brightness in each modality of BraTS relative to the brain's 1.0."""
LABELS = {
    **dict.fromkeys(("ED", "SNFH"), "oedema"),
    **dict.fromkeys(("NCR", "NETC", "NC"), "necrosis"),
    **dict.fromkeys(("CC", "RC"), "fluid"),
    "ET": "enhancing",
    "NET": "solid",
}
"""What the labels of the BraTS challenges are."""


def contrast(task: Task) -> dict[str, dict[int, float]]:
    """Return the brightness of each label in each modality, relative to the brain's 1.0.

    Tasks with the modalities and labels of BraTS look like a brain. In others, labels are bright in the first, third, …
    modality and dark in the others, each as far from the brain as its number tells.
    """
    if task.modalities == BRATS and all(label in LABELS for label in task.labels):
        rows = {number: TISSUES[LABELS[label]] for label, number in task.labels.items()}
        return {
            modality: {number: row[channel] for number, row in rows.items()} for channel, modality in enumerate(BRATS)
        }
    return {modality: _contrast(channel, len(task.labels)) for channel, modality in enumerate(task.modalities)}


def _contrast(channel: int, labels: int) -> dict[int, float]:
    ranks = {number: (number - 1 + channel) % labels for number in range(1, labels + 1)}
    if channel % 2:
        return {number: -0.35 - 0.5 * rank / labels for number, rank in ranks.items()}
    return {number: 0.4 + 0.3 * rank for number, rank in ranks.items()}


def draw_images(anatomy: Anatomy, random: np.random.Generator, task: Task) -> dict[str, np.ndarray]:
    """Draw the image of each modality, (D, H, W) float64 in arbitrary units, 0 outside the brain."""
    size = anatomy.sd.shape[0]
    shares = _shares_of_layers(anatomy)
    tissue = 1 + 0.06 * smooth_field(random, size, 1.0)
    images = {}
    for modality, brightness in contrast(task).items():
        image = _mixed(tissue, anatomy, shares, brightness)
        image *= 1 + 0.05 * smooth_field(random, size, 0.3 * size)
        image += 0.08 * random.standard_normal(image.shape)
        images[modality] = np.maximum(image, 0.05) * anatomy.brain * BRIGHTNESS
    return images


def _shares_of_layers(anatomy: Anatomy) -> list[np.ndarray]:
    """Return the probability of each layer's own label: inside its surface, and in none of those within it."""
    inside = anatomy.inside
    shares = list(inside)
    for layer, within in zip(anatomy.layers, inside, strict=True):
        if layer.around is not None:
            shares[layer.around] = shares[layer.around] - within
    return shares


def _mixed(
    tissue: np.ndarray, anatomy: Anatomy, shares: list[np.ndarray], brightness: Mapping[int, float]
) -> np.ndarray:
    image = tissue
    for layer, share in zip(anatomy.layers, shares, strict=True):
        image = image + brightness[layer.label] * share
    return image
