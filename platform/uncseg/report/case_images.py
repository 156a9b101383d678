"""The images of an out-of-fold case, turned the way radiologists look at them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.cases import Case
from uncseg.dataset.volumes import Geometry, as_itk, read_volume
from uncseg.errors import DamagedFile, ProblemsFound
from uncseg.evaluation.overlap import main_mask
from uncseg.evaluation.surface import bounding_box
from uncseg.layout import CaseFiles, RunFolder, main_probability
from uncseg.tasks.task import Task

MAP_FILES = {"error memory": "error", "uncertainty": "uncertainty", "variance_stable": "variance_stable"}
"""Maps that the evaluation writes, by the names that pictures give them."""
SHOWN_MAPS = (*MAP_FILES, "var1shot")
"""Maps in the order of pictures; var1shot is computed from p(main region)."""


Voxel = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class CaseImages:
    """The volumes of a case, (D, H, W), from feet to head, from front to back and from the patient's right to left."""

    image: np.ndarray
    """The modality that the task shows, any units."""
    reference: np.ndarray
    """Labels of the task."""
    prediction: np.ndarray
    maps: Mapping[str, np.ndarray]
    """Those of SHOWN_MAPS that are known, in [0, 1]."""
    spacing_mm: Spacing


def read_case(run: RunFolder, case: Case, task: Task) -> CaseImages:
    """Read the images of a case and what its fold predicted.

    Raises:
        DamagedFile: what the fold predicted cannot be read.
        ValueError: the case has no reference.
    """
    if case.reference is None:
        raise ValueError(f"{case.case_id} has no reference")
    files = CaseFiles(run.out_of_fold, case.case_id)
    image, spacing_mm = _turned(case.images[task.shown_channel])
    maps = {shown: _ours(files.map(name)) for shown, name in MAP_FILES.items() if files.map(name).is_file()}
    probability = files.map(main_probability(task))
    if probability.is_file():
        p = _ours(probability).astype(np.float32)
        maps["var1shot"] = 4 * p * (1 - p)
    labels, geometry = read_reference(case, task)
    reference = _turn(labels, geometry)[0]
    return CaseImages(image, reference, _ours(files.segmentation), maps, spacing_mm)


def _ours(file: Path) -> np.ndarray:
    try:
        return _turned(file)[0]
    except ProblemsFound as error:
        advice = "uncseg evaluate, on the run, makes it again"
        raise DamagedFile.of(file, error.problems[0].found, "the image that was written", advice) from error


def _turned(file: Path) -> tuple[np.ndarray, Spacing]:
    """Voxels, and the spacing along their axes; BraTS files have this orientation already."""
    volume = read_volume(file)
    return _turn(volume.voxels, volume.geometry)


def _turn(voxels: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Spacing]:
    image = sitk.DICOMOrient(as_itk(voxels, geometry), "LPS")
    x, y, z = image.GetSpacing()
    return sitk.GetArrayFromImage(image), (z, y, x)


def largest_disagreement(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Spacing, task: Task
) -> tuple[Voxel, str]:
    """Return the voxel to look at in labels (D, H, W), and the reason for it.

    This is the deepest voxel (in mm) of the largest 26-connected part where only one side has the main region. If both
    sides have the same, it is the deepest voxel of the largest part where the labels differ; if there is none either,
    the labelled voxel nearest to the centroid of all labels; without any, the middle of the volume. Among equally deep
    voxels, the one nearest to the part's centroid is chosen.
    """
    of_main = f"the voxel where reference and prediction of {task.main_in_words} differ most"
    of_labels = "the voxel where the labels differ most"
    main_differs = main_mask(reference, task) != main_mask(prediction, task)
    for differs, why in ((main_differs, of_main), (reference != prediction, of_labels)):
        if differs.any():
            components = cc3d.connected_components(differs, connectivity=26)
            region = components == 1 + np.bincount(components[differs])[1:].argmax()
            return _deepest(region, spacing_mm), why
    voxels = np.argwhere(reference > 0)
    if len(voxels):
        return _nearest_to_centroid(voxels, voxels, spacing_mm), "the middle of the labels: reference = prediction"
    d, h, w = (n // 2 for n in reference.shape)
    return (d, h, w), "the middle of the image: no label"


def _deepest(region: np.ndarray, spacing_mm: Spacing) -> Voxel:
    box = bounding_box(region)
    part = np.pad(region[box], 1)
    depth = ndimage.distance_transform_edt(part, sampling=spacing_mm)
    first = np.array([s.start for s in box]) - 1
    deepest = np.argwhere(depth >= depth.max() - 1e-6) + first
    return _nearest_to_centroid(deepest, np.argwhere(part) + first, spacing_mm)


def _nearest_to_centroid(candidates: np.ndarray, voxels: np.ndarray, spacing_mm: Spacing) -> Voxel:
    distances = ((candidates - voxels.mean(0)) * np.array(spacing_mm)) ** 2
    d, h, w = (int(n) for n in candidates[distances.sum(1).argmin()])
    return d, h, w
