"""The anatomy of a phantom: surfaces that raters move, and the probability of each label in closed form.

A body is the inside of a smooth surface, given by its signed distance s(v) in voxels. A rater moves the surface by
g(v) = σ(v)·z(v), where z is a Gaussian field of mean 0, variance 1 and known correlation length, and labels the voxels
with s + g < 0. So the probability that a rater puts a voxel inside is Φ(−s/σ). All surfaces at a voxel move together
and none crosses another, so the probability of a label is the difference of two such terms. σ is small on one side of a
body and large on the other. Where bodies lie apart, each voxel belongs to the nearest, whoever rates it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from uncseg.dataset.phantom_bodies import Body, bodies_of, labels_in
from uncseg.tasks.task import Task

CORRELATION_VOXELS = 2.5
SHARP_SD_VOXELS, VAGUE_SD_VOXELS = 0.3, 2.0
SMALL = 0.54
"""Of a small body's radius: the largest σ, and the distance that its surfaces keep between them."""
BRAIN, BODY = (0.41, 0.47), (0.19, 0.27)
"""Smallest and largest radius of the brain, and of a body that is alone, as shares of the volume's side."""
SHARES = (1.0, 0.68, 0.40)
"""Radius of each of three labels within one another, as a share of the outermost."""
BESIDE = 0.7
"""Size of a body without any label of the main region, relative to the others."""
SEVERAL = 0.9
"""Size of several bodies together, of which each has its share, relative to one alone."""
MOST_STRETCH = 1.15
CANDIDATES = 50


@dataclass(frozen=True)
class Layer:
    """A label and the surface around it and all that lies within it.

    Args:
        label: its number.
        around: number of the layer around it, which comes earlier; None: none is.
        surface: signed distance in voxels, (D, H, W), negative inside; infinite where voxels belong to another body.
    """

    label: int
    around: int | None
    surface: np.ndarray


@dataclass(frozen=True)
class Anatomy:
    """What the raters of one phantom agree on; volumes are (D, H, W).

    Args:
        brain: bool.
        layers: from the outside in.
        sd: σ, the raters' standard deviation at each voxel, voxels.
        main: numbers of the labels of the main region.
    """

    brain: np.ndarray
    layers: tuple[Layer, ...]
    sd: np.ndarray
    main: frozenset[int]

    @property
    def inside(self) -> list[np.ndarray]:
        """Probability per layer that a rater puts a voxel inside its surface, float64 in [0, 1]."""
        return [ndtr(-layer.surface / self.sd) for layer in self.layers]

    @property
    def q(self) -> np.ndarray:
        """Probability that a rater labels a voxel as one of the main region, float32 in [0, 1]."""
        q = np.zeros(self.sd.shape)
        for layer, inside in zip(self.layers, self.inside, strict=True):
            before = layer.around is not None and self.layers[layer.around].label in self.main
            if (layer.label in self.main) != before:
                q += -inside if before else inside
        return (q * self.brain).astype(np.float32)


def smooth_field(random: np.random.Generator, size: int, length: float) -> np.ndarray:
    """Return a Gaussian field of mean 0 and variance 1, (size, size, size), correlated over about ``length`` voxels.

    It is white noise, filtered with periodic borders so that its variance is the same everywhere.
    """
    impulse = np.zeros((size, size, size))
    impulse[0, 0, 0] = 1
    kernel = ndimage.gaussian_filter(impulse, length, mode="wrap")
    noise = ndimage.gaussian_filter(random.standard_normal((size, size, size)), length, mode="wrap")
    return noise / np.sqrt((kernel**2).sum())


def draw_anatomy(size: int, patient: np.random.Generator, scan: np.random.Generator, task: Task) -> Anatomy:
    """Draw the anatomy of one scan of a patient, with ``size`` voxels along each axis.

    ``patient`` determines brain, number and sites of the bodies, ``scan`` their size, shape and ambiguity.
    """
    grid = np.indices((size, size, size), dtype=np.float64)
    middle = np.full(3, (size - 1) / 2)
    brain = _radius(grid, middle, patient.uniform(*BRAIN, 3) * size) < 1
    fewest, most = task.phantom.lesions
    lesions = fewest if fewest == most else int(patient.integers(fewest, most + 1))
    main = frozenset(task.numbers[task.main_region])
    layers, sd = _Drawing(grid, patient, scan, main).bodies(bodies_of(task, lesions), middle, float(size))
    return Anatomy(brain, tuple(layers), sd, main)


def draw_rater(anatomy: Anatomy, random: np.random.Generator) -> np.ndarray:
    """Draw one rater's labels, as the task numbers them, uint8."""
    moved = anatomy.sd * smooth_field(random, anatomy.sd.shape[0], CORRELATION_VOXELS)
    labels = np.zeros(anatomy.sd.shape, dtype=np.uint8)
    for layer in anatomy.layers:
        labels[layer.surface + moved < 0] = layer.label
    return labels * anatomy.brain


@dataclass(frozen=True)
class _Drawing:
    """Draws bodies on a grid, (3, D, H, W): the coordinates of each voxel. ``main`` is that of the anatomy."""

    grid: np.ndarray
    patient: np.random.Generator
    scan: np.random.Generator
    main: frozenset[int]

    def bodies(
        self, bodies: Sequence[Body], middle: np.ndarray, room: float, parent: np.ndarray | None = None
    ) -> tuple[list[Layer], np.ndarray]:
        """Return the layers of bodies around ``middle``, and σ; ``room`` is the side of the volume that they share."""
        sizes = np.array([1.0 if self.main.intersection(labels_in(body)) else BESIDE for body in bodies])
        sizes *= 1 / sizes[0] if len(bodies) == 1 else SEVERAL / np.linalg.norm(sizes)
        sites = middle + _offsets(self.patient, len(bodies), sizes.max()) * room
        drawn = [
            self._body(body, site, room * size, parent) for body, site, size in zip(bodies, sites, sizes, strict=True)
        ]
        owner = np.argmin([layers[0].surface for layers, _ in drawn], axis=0)
        sd = np.take_along_axis(np.stack([sd for _, sd in drawn]), owner[None], axis=0)[0]
        joined: list[Layer] = []
        for alike in dict.fromkeys(bodies):  # bodies of the same labels share their layers
            copies = [(number, layers) for number, (layers, _) in enumerate(drawn) if bodies[number] == alike]
            joined += _joined(copies, owner, first=len(joined))
        return joined, sd

    def _body(
        self, body: Body, site: np.ndarray, room: float, parent: np.ndarray | None
    ) -> tuple[list[Layer], np.ndarray]:
        size, scan = len(self.grid[0]), self.scan
        reach = scan.uniform(*BODY) * room
        distance = _radius(self.grid, site, scan.uniform(0.85, MOST_STRETCH, 3))
        surface = distance - reach + 0.07 * reach * smooth_field(scan, size, 0.1 * room)
        towards = scan.standard_normal(3)
        towards /= np.linalg.norm(towards)
        outwards = np.tensordot(towards, self.grid - site[:, None, None, None], axes=1) / np.maximum(distance, 1)
        vague = min(VAGUE_SD_VOXELS, SMALL * reach)
        sd = SHARP_SD_VOXELS + (vague - SHARP_SD_VOXELS) / (1 + np.exp(-5 * outwards))
        lumps = 0.05 * reach * smooth_field(scan, size, 0.08 * room)
        layers = _within_one_another(body.labels, surface, distance, reach, lumps, parent)
        if body.inner:
            within, last, first = layers[-1].surface, len(layers) - 1, len(layers)
            room_within = float(_shares(len(body.labels))[-1] * reach / np.mean(BRAIN))
            inner, inner_sd = self.bodies(body.inner, site, room_within, within)
            sd = np.minimum(sd, inner_sd)
            for layer in inner:
                around = last if layer.around is None else first + layer.around
                layers.append(Layer(layer.label, around, layer.surface))
        return layers, sd


def _within_one_another(
    labels: Sequence[int],
    surface: np.ndarray,
    distance: np.ndarray,
    reach: float,
    lumps: np.ndarray,
    parent: np.ndarray | None,
) -> list[Layer]:
    """Return the layers of labels from the outside in; the first has the given surface, all lie within the parent's."""
    gap, layers = min(1.0, SMALL * reach / max(len(labels) - 1, 1)), list[Layer]()
    for number, (label, share) in enumerate(zip(labels, _shares(len(labels)), strict=True)):
        if number:
            surface = distance - share * reach + (lumps if number % 2 else -lumps)
        outside = layers[-1].surface if layers else parent
        surface = surface if outside is None else np.maximum(surface, outside + gap)
        layers.append(Layer(label, number - 1 if number else None, surface))
    return layers


def _radius(grid: np.ndarray, centre: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    return np.sqrt((((grid - centre[:, None, None, None]) / stretch[:, None, None, None]) ** 2).sum(0))


def _shares(labels: int) -> tuple[float, ...]:
    if labels <= len(SHARES):
        return SHARES[:labels]
    places = np.linspace(0, len(SHARES) - 1, labels)
    return tuple(np.interp(places, range(len(SHARES)), SHARES))


def _offsets(random: np.random.Generator, bodies: int, size: float) -> np.ndarray:
    """Draw where bodies lie, from the middle in shares of the room's side, (bodies, 3); several are far apart."""
    if bodies == 1:
        return random.uniform(-0.13, 0.13, 3)[None]
    found = np.zeros((1, 3))
    for _ in range(bodies):
        directions = random.standard_normal((CANDIDATES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        radii = (BRAIN[0] - BODY[1] * MOST_STRETCH * size) * np.cbrt(random.uniform(0, 1, (CANDIDATES, 1)))
        candidates = directions * radii
        nearest = np.linalg.norm(candidates[:, None] - found, axis=2).min(axis=1)
        # the first one lies far from the middle, the others far from those before
        found = np.concatenate([found, candidates[[np.argmax(nearest)]]])[-bodies:]
    return found


def _joined(copies: list[tuple[int, list[Layer]]], owner: np.ndarray, first: int) -> list[Layer]:
    """Return the layers of bodies of the same labels as one list, numbered from ``first``, each in its own voxels."""
    joined = []
    for number, layer in enumerate(copies[0][1]):
        surface = np.full(owner.shape, np.inf)
        for body, layers in copies:
            surface = np.where(owner == body, layers[number].surface, surface)
        joined.append(Layer(layer.label, None if layer.around is None else first + layer.around, surface))
    return joined
