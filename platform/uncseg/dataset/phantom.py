"""Phantoms: synthetic BraTS 2023 cases whose ambiguity is known exactly.

A tumour is the inside of a smooth surface, given by its signed distance s(v) in voxels. A rater moves the surface by
g(v) = σ(v)·z(v), where z is a Gaussian field of mean 0, variance 1 and known correlation length, and labels as tumour
the voxels with s + g < 0. So q(v), the probability that a rater labels a voxel as tumour, is Φ(−s/σ) in closed form.
The reference is one rater's. The image fades across the border as q does, so that a network can see where raters
disagree. σ is small on one side of a tumour and large on the other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from uncseg.config.sections import Dataset
from uncseg.dataset.volumes import Geometry, write_volume
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json, write_json

CORRELATION_VOXELS = 2.5
SHARP_SD_VOXELS, VAGUE_SD_VOXELS = 0.3, 2.0
CORE_SHARE, NECROSIS_SHARE = 0.68, 0.40
ORIGIN_MM = (0.0, -239.0, 0.0)
TWO_SCANS_EVERY = 5
# brightness relative to the brain's 1.0 of (oedema, enhancing tumour, necrosis)
CONTRAST = {"t1n": (-0.25, -0.35, -0.5), "t1c": (-0.1, 1.0, -0.3), "t2w": (0.6, 0.4, 0.9), "t2f": (0.8, 0.6, 0.1)}
STORED = {"t1n": np.int16, "t1c": np.float32, "t2w": np.int16, "t2f": np.float32}
BRIGHTNESS = 1000


@dataclass(frozen=True)
class Anatomy:
    """What the raters of one phantom agree on; volumes are (D, H, W).

    Args:
        brain: bool.
        whole, core, necrosis: signed distances to the surfaces in voxels, negative inside; nested.
        sd: σ, the raters' standard deviation at each voxel, voxels.
    """

    brain: np.ndarray
    whole: np.ndarray
    core: np.ndarray
    necrosis: np.ndarray
    sd: np.ndarray

    @property
    def q(self) -> np.ndarray:
        """Probability that a rater labels a voxel as tumour, float32 in [0, 1]."""
        return (ndtr(-self.whole / self.sd) * self.brain).astype(np.float32)


def smooth_field(random: np.random.Generator, size: int, length: float) -> np.ndarray:
    """Return a Gaussian field of mean 0 and variance 1, (size, size, size), correlated over about ``length`` voxels.

    It is white noise, filtered with periodic borders so that its variance is the same everywhere.
    """
    impulse = np.zeros((size, size, size))
    impulse[0, 0, 0] = 1
    kernel = ndimage.gaussian_filter(impulse, length, mode="wrap")
    noise = ndimage.gaussian_filter(random.standard_normal((size, size, size)), length, mode="wrap")
    return noise / np.sqrt((kernel**2).sum())


def draw_anatomy(size: int, patient: np.random.Generator, scan: np.random.Generator) -> Anatomy:
    """Draw the anatomy of one scan of a patient, with ``size`` voxels along each axis.

    ``patient`` determines brain and tumour site, ``scan`` size, shape and ambiguity of the tumour.
    """
    grid = np.indices((size, size, size), dtype=np.float64)
    middle = (size - 1) / 2

    def radius(centre: np.ndarray, stretch: np.ndarray) -> np.ndarray:
        return np.sqrt((((grid - centre[:, None, None, None]) / stretch[:, None, None, None]) ** 2).sum(0))

    brain = radius(np.full(3, middle), patient.uniform(0.41, 0.47, 3) * size) < 1
    site = middle + patient.uniform(-0.13, 0.13, 3) * size
    reach = scan.uniform(0.19, 0.27) * size
    distance = radius(site, scan.uniform(0.85, 1.15, 3))
    whole = distance - reach + 0.07 * reach * smooth_field(scan, size, 0.1 * size)
    towards = scan.standard_normal(3)
    towards /= np.linalg.norm(towards)
    outwards = np.tensordot(towards, grid - site[:, None, None, None], axes=1) / np.maximum(distance, 1)
    sd = SHARP_SD_VOXELS + (VAGUE_SD_VOXELS - SHARP_SD_VOXELS) / (1 + np.exp(-5 * outwards))
    lumps = 0.05 * reach * smooth_field(scan, size, 0.08 * size)
    core = np.maximum(distance - CORE_SHARE * reach + lumps, whole + 1)
    necrosis = np.maximum(distance - NECROSIS_SHARE * reach - lumps, core + 1)
    return Anatomy(brain, whole, core, necrosis, sd)


def draw_rater(anatomy: Anatomy, random: np.random.Generator) -> np.ndarray:
    """Draw one rater's labels: 1 NCR, 2 ED, 3 ET, uint8."""
    moved = anatomy.sd * smooth_field(random, anatomy.sd.shape[0], CORRELATION_VOXELS)
    labels = np.zeros(anatomy.sd.shape, dtype=np.uint8)
    for surface, label in ((anatomy.whole, 2), (anatomy.core, 3), (anatomy.necrosis, 1)):
        labels[surface + moved < 0] = label
    return labels * anatomy.brain


def draw_images(anatomy: Anatomy, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the four modalities, in arbitrary units, 0 outside the brain."""
    size = anatomy.sd.shape[0]
    whole, core, necrosis = (ndtr(-s / anatomy.sd) for s in (anatomy.whole, anatomy.core, anatomy.necrosis))
    tissue = 1 + 0.06 * smooth_field(random, size, 1.0)
    images = {}
    for modality, (oedema, enhancing, dead) in CONTRAST.items():
        image = tissue + oedema * (whole - core) + enhancing * (core - necrosis) + dead * necrosis
        image *= 1 + 0.05 * smooth_field(random, size, 0.3 * size)
        image += 0.08 * random.standard_normal(image.shape)
        images[modality] = np.maximum(image, 0.05) * anatomy.brain * BRIGHTNESS
    return images


def case_names(cases: int) -> list[str]:
    """Return BraTS 2023 names; every fifth patient has two scans, -000 and -001."""
    names = [
        f"BraTS-GLI-{patient:05d}-{scan:03d}"
        for patient in range(cases)
        for scan in range(2 if patient % TWO_SCANS_EVERY == TWO_SCANS_EVERY - 1 else 1)
    ]
    return names[:cases]


def write_phantoms(out: Path, cases: int, size: int, seed: int) -> list[Path]:
    """Write phantoms in the layout of BraTS 2023, with q as CASE-q.nii.gz, and return the cases' folders.

    Each has ``size`` voxels of 1 mm along each axis. Existing phantoms with the same parameters are kept.

    Raises:
        ProblemsFound: the folder holds something else.
    """
    names = case_names(cases)
    folders = [out / name for name in names]
    record, parameters = out / "phantoms.json", {"cases": cases, "size": size, "seed": seed}
    if record.is_file() and read_json(record) == parameters:
        return folders
    if out.is_dir() and (record.exists() or any(path.name not in names for path in out.iterdir())):
        found = f"phantoms with {read_json(record)}" if record.exists() else "other files"
        problem = Problem(str(out), found, f"an empty folder, or phantoms with {parameters}", "choose another folder")
        raise ProblemsFound("The phantoms cannot be written.", [problem])
    for name, folder in zip(names, folders, strict=True):
        _write_case(folder, name, size, seed)
    write_json(record, parameters)
    return folders


def write_missing_phantoms(dataset: Dataset) -> None:
    """Write the phantoms that an experiment asks for, unless its folder holds other cases."""
    if (phantoms := dataset.phantoms) is None:
        return
    names = case_names(phantoms.cases)
    if not (dataset.path.is_dir() and any(path.name not in names for path in dataset.path.iterdir())):
        write_phantoms(dataset.path, phantoms.cases, phantoms.size, phantoms.seed)


def _write_case(folder: Path, name: str, size: int, seed: int) -> None:
    patient, scan = map(int, name.split("-")[2:])
    random = np.random.default_rng([seed, patient, 1 + scan])
    anatomy = draw_anatomy(size, np.random.default_rng([seed, patient, 0]), random)
    geometry = Geometry((size, size, size), (1.0, 1.0, 1.0), ORIGIN_MM, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    for modality, image in draw_images(anatomy, random).items():
        stored = STORED[modality]
        values = np.round(image) if np.issubdtype(stored, np.integer) else image
        write_volume(folder / f"{name}-{modality}.nii.gz", values.astype(stored), geometry)
    write_volume(folder / f"{name}-seg.nii.gz", draw_rater(anatomy, random), geometry)
    write_volume(folder / f"{name}-q.nii.gz", anatomy.q, geometry)
