"""Checks that find every problem of a BraTS folder before any work starts."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from uncseg.dataset.brats import CONVENTION_LABELS, BratsCase, scan_folder
from uncseg.dataset.images import GEOMETRY_TOLERANCE, READ_ERRORS, unreadable
from uncseg.errors import Problem, raise_if_any


def check_dataset(folder: Path) -> list[BratsCase]:
    """Open every file of every case of a BraTS folder; return the cases, sorted by id.

    Raises:
        ProblemsFound: every problem of every case at once, of the layout and of the contents.
    """
    cases, problems = scan_folder(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for wrong in pool.map(check_case, cases):
            problems += wrong
    raise_if_any(problems, f"The dataset {folder} cannot be used.", exit_code=1)
    return cases


def check_case(case: BratsCase) -> list[Problem]:
    """Open all files of a case and return its problems.

    Problems are files that cannot be read, sizes or affines that differ among the files, NaN or infinite voxels, images
    that are zero everywhere, and unknown labels.
    """
    problems: list[Problem] = []
    geometries: dict[Path, tuple] = {}
    for file in case.files:
        if (content := _read(file, problems)) is not None:
            geometries[file], array = content
            is_reference = file == case.reference
            problems += _check_labels(case, file, array) if is_reference else _check_intensities(file, array)
    return problems + _check_geometry(geometries)


def _read(file: Path, problems: list[Problem]) -> tuple[tuple, np.ndarray] | None:
    """Return the geometry as nnU-Net's reader sees it, and the voxels as they are stored.

    ITK alone does not suffice: without a warning it fills a truncated file with zeros and turns NaN into 0.
    """
    try:
        array = np.asanyarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]
        image = sitk.ReadImage(str(file))
    except READ_ERRORS:
        problems.append(unreadable(file))
        return None
    if (image.GetDimension(), image.GetNumberOfComponentsPerPixel()) == (3, 1):
        return (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()), array
    found = f"{image.GetDimension()} dimensions, {image.GetNumberOfComponentsPerPixel()} components per voxel"
    problems.append(Problem(str(file), found, "a 3D image of single values", "convert it, or exclude the case"))
    return None


def _check_geometry(geometries: dict[Path, tuple]) -> list[Problem]:
    names = ("size", "spacing (mm)", "origin (mm)", "direction")
    problems = []
    for file in list(geometries)[1:]:
        first = next(iter(geometries))
        for name, mine, its in zip(names, geometries[file], geometries[first], strict=True):
            if not np.allclose(mine, its, atol=GEOMETRY_TOLERANCE):
                found, expected = f"{name} {_short(mine)}", f"{_short(its)}, as {first.name}"
                problems.append(Problem(str(file), found, expected, "resample it onto the same grid"))
    return problems


def _short(values: tuple) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _check_intensities(file: Path, array: np.ndarray) -> list[Problem]:
    if np.issubdtype(array.dtype, np.floating) and (wrong := int(array.size - np.isfinite(array).sum())):
        found = f"{wrong} voxels that are NaN or infinite"
        return [Problem(str(file), found, "finite values", "repair the image, or exclude the case")]
    if not array.any():
        return [Problem(str(file), "zero everywhere", "an image", "download it again, or exclude the case")]
    return []


def _check_labels(case: BratsCase, file: Path, array: np.ndarray) -> list[Problem]:
    known = CONVENTION_LABELS[case.convention]
    values, counts = np.unique(array, return_counts=True)
    strange = [f"label {v:g} ({n} voxels)" for v, n in zip(values, counts, strict=True) if v not in known]
    expected = "only " + ", ".join(map(str, known)) + f" (naming of {case.convention})"
    return [Problem(str(file), ", ".join(strange), expected, "map or remove these labels")] if strange else []
