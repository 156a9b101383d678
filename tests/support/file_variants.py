"""Small cases whose NIfTI files are stored in every way that files of real data sets are stored.

A :class:`CaseVariant` says how the files of a case are stored, and :func:`stored_values`, :func:`true_labels` and
:func:`lps_geometry` say in closed form what they mean. ``support.file_bytes`` writes them, ``support.file_damage``
damages them. None of these uses the product's readers and writers.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from uncseg.dataset.phantom_anatomy import draw_anatomy, draw_rater
from uncseg.dataset.phantom_images import draw_images
from uncseg.tasks.built_in_tasks import paper_task

ROLES = ("t1n", "t1c", "t2w", "t2f", "seg")
NAMING = {"2023": dict(zip(ROLES, ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), strict=True)),
          "2018": dict(zip(ROLES, ("_t1", "_t1ce", "_t2", "_flair", "_seg"), strict=True))}  # fmt: skip
NAMES = {"2023": "BraTS-GLI-{:05d}-000", "2018": "Brats18_TCIA01_{:03d}_1"}
SHAPE = (20, 22, 25)
"""Voxels along x, y and z before axes are permuted; no two are equal, so that swapped axes are seen."""
DATATYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}


class Brief:
    """Shows the fields that differ from their defaults alone, so that hypothesis prints a recipe that can be read."""

    def __repr__(self) -> str:
        shown = []
        for what in fields(self):  # type: ignore[arg-type]
            value, usual = getattr(self, what.name), what.default
            if what.default_factory is not MISSING:
                usual = what.default_factory()
            if isinstance(value, dict) and isinstance(usual, dict):
                value = {name: one for name, one in value.items() if one != usual[name]}
                usual = {}
            if value != usual:
                shown.append(f"{what.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(frozen=True, repr=False)
class Space(Brief):
    """Where the voxels of a case lie: the same for all of its files."""

    axes: tuple[int, ...] = (0, 1, 2)
    """The phantom's axis along each stored axis."""
    flips: tuple[int, ...] = (-1, -1, 1)
    """-1 where a stored axis runs against the scanner's (RAS)."""
    degrees: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Rotation about the scanner's axes."""
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Along the stored axes, mm."""
    origin: tuple[float, ...] = (0.0, 239.0, 0.0)
    """Of the first stored voxel, RAS, mm."""
    units: str = "mm"


@dataclass(frozen=True, repr=False)
class Forms(Brief):
    """The header's two ways to say where the voxels lie, of which either may be left out."""

    sform: int = 1
    qform: int = 1
    other: str = ""
    """How the form that ITK does not read differs: "", "moved", "turned", "zoomed", "sheared"."""


@dataclass(frozen=True, repr=False)
class FileVariant(Brief):
    """How one file is stored."""

    dtype: str = "i2"
    order: str = "<"
    slope: float = 1.0
    inter: float = 0.0
    noise: float = 0.0
    """Largest difference of a stored label from a whole number; of images stored as floats, of a voxel from one."""
    version: int = 1
    codes: tuple[int, int] | None = None
    """Form codes of its own; None: those of the case."""
    trailing: int = 0
    """Axes of length 1 behind the third."""
    extra: tuple[tuple[str, object], ...] = ()
    """Header fields that do not matter."""
    extension: int = 0
    """Bytes of header extensions."""
    ending: str = ".nii.gz"
    level: int = 6
    members: int = 1
    """Number of gzip members, one behind the other."""
    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Added to the origin, mm."""
    stretch: float = 0.0
    """Added to the first spacing, mm."""
    tilt: float = 0.0
    """Added to the rotation about the scanner's last axis, degrees."""


@dataclass(frozen=True, repr=False)
class Damage(Brief):
    """What makes a file one that may not be used."""

    kind: str
    role: str
    amount: float = 0.0
    place: float = 0.0
    """Where in the file, from 0 to 1."""


@dataclass(frozen=True, repr=False)
class CaseVariant(Brief):
    """How the files of a case are stored, and what is wrong with one of them."""

    naming: str = "2023"
    space: Space = Space()
    forms: Forms = Forms()
    files: dict[str, FileVariant] = field(default_factory=lambda: dict.fromkeys(ROLES, FileVariant()))
    damage: Damage | None = None
    patient: int = 7

    @property
    def case_id(self) -> str:
        """The case's name."""
        return NAMES[self.naming].format(self.patient)

    def file_name(self, role: str) -> str:
        """Return the name of a file."""
        return f"{self.case_id}{NAMING[self.naming][role]}{self.files[role].ending}"

    def codes(self, role: str) -> tuple[int, int]:
        """Return a file's codes of sform and qform."""
        return self.files[role].codes or (self.forms.sform, self.forms.qform)

    def with_files(self, **changes: object) -> "CaseVariant":
        """Return the variant with all of its files stored in another way."""
        return replace(self, files={role: replace(file, **changes) for role, file in self.files.items()})

    def with_file(self, role: str, **changes: object) -> "CaseVariant":
        """Return the variant with one of its files stored in another way."""
        return replace(self, files=self.files | {role: replace(self.files[role], **changes)})


@lru_cache
def phantom(patient: int) -> dict[str, np.ndarray]:
    """Return whole numbers that fit every type: images from 0 to 120, labels of 2023 (0, 1, 2, 3); axes x, y, z."""
    random, size = np.random.default_rng([11, patient]), min(SHAPE)
    anatomy = draw_anatomy(size, random, random, paper_task())
    drawn = draw_images(anatomy, random, paper_task())
    images = {role: np.clip(np.rint(image / 20), 0, 120) for role, image in drawn.items()}
    volumes = images | {"seg": draw_rater(anatomy, random)}
    # more air on one side of the head than on the other, which nnU-Net cuts off
    air = [(n - size, 0) for n in SHAPE]
    return {role: np.pad(volume.astype(np.int64), air) for role, volume in volumes.items()}


def reordered(volume: np.ndarray, space: Space) -> np.ndarray:
    """Return a volume with its axes in the order and direction in which they are stored."""
    turned = volume.transpose(space.axes)
    # in a plain file x and y run against the scanner's axes
    plain = (-1, -1, 1)
    steps = [flip * plain[axis] for axis, flip in zip(space.axes, space.flips, strict=True)]
    return turned[tuple(slice(None, None, step) for step in steps)]


def encoded(variant: CaseVariant, role: str) -> np.ndarray:
    """Return the numbers that stand in a file, (x, y, z) in the file's type."""
    file, volume = variant.files[role], reordered(phantom(variant.patient)[role], variant.space)
    numbers = volume.astype(np.float64)
    if role == "seg":
        if variant.naming == "2018":
            numbers[volume == 3] = 4
        numbers = (numbers - file.inter) / (file.slope if is_scale(file.slope) else 1)
        if file.dtype[0] != "f":
            numbers = np.rint(numbers)
    if file.dtype[0] == "f":
        wave = np.sin(np.arange(volume.size)).reshape(volume.shape)
        wave /= np.abs(wave).max()
        # labels differ from whole numbers everywhere, images where they are not 0
        numbers += (
            wave
            * file.noise
            / (abs(file.slope) if is_scale(file.slope) else 1)
            * (1 if role == "seg" else numbers != 0)
        )
    return numbers.astype(f"{file.order}{file.dtype}")


def is_scale(slope: float) -> bool:
    """Return whether a slope scales anything."""
    return bool(slope) and bool(np.isfinite(slope))


def stored_values(variant: CaseVariant, role: str) -> np.ndarray:
    """Return what the numbers mean, (x, y, z) float64: NIfTI's scale factors are in single (1) or double precision (2).

    A slope of 0, or one that is no number, means that there is no scale.
    """
    file = variant.files[role]
    single = np.float32 if file.version == 1 else np.float64
    slope, inter = (file.slope, file.inter) if is_scale(file.slope) else (1.0, 0.0)
    return encoded(variant, role).astype(np.float64) * np.float64(single(slope)) + np.float64(single(inter))


def true_labels(variant: CaseVariant) -> np.ndarray:
    """Return the labels of 2023 that the reference stands for, (x, y, z)."""
    return reordered(phantom(variant.patient)["seg"], variant.space).astype(np.uint8)


def ras_affine(space: Space, file: FileVariant) -> np.ndarray:
    """Return the matrix from voxels to mm (RAS)."""
    affine = np.eye(4)
    signed = np.zeros((3, 3))
    for column, (axis, flip) in enumerate(zip(space.axes, space.flips, strict=True)):
        signed[axis, column] = flip
    spacing = np.add(space.spacing, (file.stretch, 0, 0))
    affine[:3, :3] = rotation(np.add(space.degrees, (0, 0, file.tilt))) @ signed @ np.diag(spacing)
    affine[:3, 3] = np.add(space.origin, file.shift)
    return affine


def rotation(degrees: Sequence[float]) -> np.ndarray:
    """Return the rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, other = (n for n in range(3) if n != axis)
        turn = np.eye(3)
        turn[[one, one, other, other], [one, other, one, other]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))  # fmt: skip
        matrix = turn @ matrix
    return matrix


def lps_geometry(variant: CaseVariant, role: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return spacing, origin and direction of a file as ITK names them: x and y have the other sign.

    Without a form a file has neither position nor direction.
    """
    lps = np.diag([-1, -1, 1]) @ ras_affine(variant.space, variant.files[role])[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    if not any(variant.codes(role)):
        return spacing, np.zeros(3), np.eye(3)
    return spacing, lps[:, 3], lps[:, :3] / spacing
