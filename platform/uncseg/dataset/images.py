"""Reading NIfTI volumes as they are stored, and the problems of those that cannot be used."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import nibabel.filebasedimages
import numpy as np

from uncseg.errors import Problem

GEOMETRY_TOLERANCE = 1e-3
# what nibabel and ITK raise for files that are truncated, of another kind, or missing
READ_ERRORS = (RuntimeError, EOFError, OSError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError)


@dataclass(frozen=True)
class Volume:
    """The voxels of one file, in stored order."""

    file: Path
    array: np.ndarray
    affine: np.ndarray
    """(4, 4), voxels to mm."""

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along the array's axes."""
        return tuple(float(step) for step in nibabel.affines.voxel_sizes(self.affine))


def read_volume(file: Path, problems: list[Problem]) -> Volume | None:
    """Return a 3D volume, or add a problem and return None if the file cannot be used."""
    try:
        image = nibabel.load(file)
        array = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine)  # type: ignore[attr-defined]
    except READ_ERRORS:
        problems.append(unreadable(file))
        return None
    if array.ndim == 3:
        return Volume(file, array, affine)
    problems.append(Problem(str(file), f"{array.ndim} dimensions", "a 3D image of single values", "convert it"))
    return None


def unreadable(file: Path) -> Problem:
    """Return the problem of a file that is not a complete image."""
    found = f"{file.stat().st_size} bytes that are not a complete NIfTI image" if file.exists() else "no file"
    return Problem(str(file), found, "a NIfTI image", "write or download it again, or exclude the case")


def geometry_problems(volume: Volume, like: Volume) -> list[Problem]:
    """Return how the grid of ``volume`` differs from that of ``like``, in size or in position (mm)."""
    if volume.array.shape != like.array.shape:
        found, expected = f"size {volume.array.shape}", f"{like.array.shape}"
    elif not np.allclose(volume.affine, like.affine, atol=GEOMETRY_TOLERANCE):
        (row, column), *_ = np.argwhere(~np.isclose(volume.affine, like.affine, atol=GEOMETRY_TOLERANCE))
        found, expected = f"affine[{row}, {column}] {volume.affine[row, column]:g}", f"{like.affine[row, column]:g}"
    else:
        return []
    return [Problem(str(volume.file), found, f"{expected}, as {like.file.name}", "resample it onto the same grid")]
