"""Reading NIfTI volumes as they are stored, and saying what is wrong with those that cannot be used."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import nibabel.filebasedimages
import numpy as np

from uncseg.errors import Problem

GEOMETRY_TOLERANCE = 1e-3
# what nibabel and ITK raise for files that are truncated, of another kind, or not there
READ_ERRORS = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
)


@dataclass(frozen=True)
class Volume:
    """One file's voxels in stored order."""

    file: Path
    array: np.ndarray
    affine: np.ndarray
    """(4, 4), voxels to mm."""

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Along the array's axes."""
        return tuple(float(step) for step in nibabel.affines.voxel_sizes(self.affine))


def read_volume(file: Path, problems: list[Problem]) -> Volume | None:
    """A 3D volume, or None with a problem added where the file cannot be used."""
    try:
        image = nibabel.load(file)
        array = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine)  # type: ignore[attr-defined]
    except READ_ERRORS:
        problems.append(unreadable(file))
        return None
    if array.ndim != 3:
        problems.append(Problem(str(file), f"{array.ndim} dimensions", "a 3D image of single values", "convert it"))
        return None
    return Volume(file, array, affine)


def unreadable(file: Path) -> Problem:
    """The problem of a file that is not a whole image."""
    found = f"{file.stat().st_size} bytes that are not a whole NIfTI image" if file.exists() else "no file"
    return Problem(str(file), found, "a NIfTI image", "write or fetch it again, or exclude the case")


def geometry_problems(volume: Volume, like: Volume) -> list[Problem]:
    """How the grid of ``volume`` differs from that of ``like``: size, or position in mm."""
    expected = f"{_short(like.array.shape)}, as {like.file.name}"
    if volume.array.shape != like.array.shape:
        return [_geometry_problem(volume, f"size {_short(volume.array.shape)}", expected)]
    if not np.allclose(volume.affine, like.affine, atol=GEOMETRY_TOLERANCE):
        (row, column), *_ = np.argwhere(~np.isclose(volume.affine, like.affine, atol=GEOMETRY_TOLERANCE))
        found = f"affine[{row}, {column}] {volume.affine[row, column]:g}"
        return [_geometry_problem(volume, found, f"{like.affine[row, column]:g}, as {like.file.name}")]
    return []


def _geometry_problem(volume: Volume, found: str, expected: str) -> Problem:
    return Problem(str(volume.file), found, expected, "resample it onto the same grid")


def _short(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
