"""BraTS cases on disk: finding them, reading references, linking them into nnU-Net's raw folder.

The naming of 2023 (CASE-t1n.nii.gz, …, CASE-seg.nii.gz, labels 1 2 3) is used as it is; that of 2018 to 2021
(CASE_t1.nii.gz, CASE_t1ce, …, label 4 for ET) is recognised and mapped.
"""

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from uncseg.dataset.patients import patient_of
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import whole_file

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
LABELS = {"NCR": 1, "ED": 2, "ET": 3}
CONVENTION_LABELS = {"2023": (0, 1, 2, 3), "2018": (0, 1, 2, 4)}
ENDINGS = (".nii.gz", ".nii")

Convention = Literal["2023", "2018"]
ROLES = (*MODALITIES, "seg")
FILE_ROLES: dict[str, tuple[str, Convention]] = {
    **{f"-{role}": (role, "2023") for role in ROLES},
    **{f"_{name}": (role, "2018") for name, role in zip(("t1", "t1ce", "t2", "flair", "seg"), ROLES, strict=True)},
}


@dataclass(frozen=True)
class BratsCase:
    """One scan.

    Args:
        case_id: name of its folder.
        patient: scans of one patient share it.
        images: four files in the order of :data:`MODALITIES`; of a case to predict, one per channel of the model.
        reference: segmentation, or None.
        convention: naming and labels of 2023, or of 2018 to 2021.
    """

    case_id: str
    patient: str
    images: tuple[Path, ...]
    reference: Path | None
    convention: Convention

    @property
    def files(self) -> tuple[Path, ...]:
        """The images, and the reference if there is one."""
        return self.images if self.reference is None else (*self.images, self.reference)


def scan_folder(folder: Path, require_reference: bool = True) -> tuple[list[BratsCase], list[Problem]]:
    """Return the complete cases, sorted by id, and the problems of the others.

    Cases are folders with image files, directly in ``folder`` or deeper (HGG/CASE, LGG/CASE).

    Raises:
        ProblemsFound: there is no such folder (exit code 2) or no case in it (1).
    """
    title = f"The dataset {folder} cannot be used."
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        advice = "correct the path, or make phantoms: uncseg phantom"
        raise ProblemsFound(title, [Problem(str(folder), found, "a folder with one folder per case", advice)])
    by_name: dict[str, list[Path]] = defaultdict(list)
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        if any(_role(Path(parent).name, name) for name in files):
            by_name[Path(parent).name].append(Path(parent))
    if not by_name:
        expected = "one folder per case, for example BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz"
        problem = Problem(str(folder), "no case", expected, "give the folder that holds the cases' folders")
        raise ProblemsFound(title, [problem], exit_code=1)
    cases, problems = [], []
    for name, places in sorted(by_name.items()):
        if len(places) > 1:
            found = f"{len(places)} cases of this name: " + ", ".join(str(p.relative_to(folder)) for p in places)
            problems.append(Problem(name, found, "one", "rename or remove the others"))
            continue
        case, wrong = _complete(places[0], require_reference)
        problems += wrong
        if case is not None:
            cases.append(case)
    return cases, problems


def _role(case_id: str, file_name: str) -> tuple[str, Convention] | None:
    for ending in ENDINGS:
        stem = file_name.removesuffix(ending)
        if stem != file_name and stem.startswith(case_id):
            return FILE_ROLES.get(stem.removeprefix(case_id))
    return None


def _complete(folder: Path, require_reference: bool) -> tuple[BratsCase | None, list[Problem]]:
    roles: dict[str, list[Path]] = defaultdict(list)
    conventions = set()
    for file in sorted(folder.iterdir()):
        if role := _role(folder.name, file.name):
            roles[role[0]].append(file)
            conventions.add(role[1])
    needed = ROLES if require_reference else MODALITIES
    convention: Convention = "2018" if conventions == {"2018"} else "2023"
    names = {needs: f"{folder.name}{s}.nii.gz" for s, (needs, of) in FILE_ROLES.items() if of == convention}
    problems = [
        Problem(f"{folder.name}/{names[what]}", "no such file", "all of " + ", ".join(needed), "add it or exclude it")
        for what in needed
        if not roles[what]
    ]
    for what, files in roles.items():
        if len(files) > 1:
            found = " and ".join(file.name for file in files)
            problems.append(Problem(f"{folder.name} ({what})", found, "one file", "remove the others"))
    if problems:
        return None, problems
    images = tuple(roles[modality][0] for modality in MODALITIES)
    reference = next(iter(roles["seg"]), None)
    return BratsCase(folder.name, patient_of(folder.name), images, reference, convention), []


def oracle_path(case: BratsCase) -> Path | None:
    """Return the file of a phantom's q, the probability per voxel that a rater calls it tumour; None for real cases."""
    file = case.images[0].parent / f"{case.case_id}-q.nii.gz"
    return file if file.is_file() else None


def read_reference(case: BratsCase) -> tuple[np.ndarray, sitk.Image]:
    """Return the reference labels 1 NCR, 2 ED, 3 ET as (D, H, W) uint8, and their image (for its geometry)."""
    if case.reference is None:
        raise ValueError(f"{case.case_id} has no reference")
    image = sitk.ReadImage(str(case.reference))
    return map_labels(sitk.GetArrayFromImage(image), case.convention), image


def read_voxels(file: Path) -> np.ndarray:
    """Return an image's voxels, (D, H, W)."""
    voxels: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return voxels


def write_image(path: Path, array: np.ndarray, like: sitk.Image) -> None:
    """Write (D, H, W) voxels as compressed NIfTI in the geometry of another image; never a partial file."""
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    with whole_file(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def map_labels(labels: np.ndarray, convention: Convention) -> np.ndarray:
    """Return labels of either convention as those of 2023: 4 becomes 3."""
    mapped = labels.astype(np.uint8)
    if convention == "2018":
        mapped[mapped == 4] = 3
    return mapped


def link_or_map(case: BratsCase, images_dir: Path, labels_dir: Path) -> None:
    """Put a case into nnU-Net's raw folder: CASE_0000.nii.gz … CASE_0003.nii.gz, and the reference CASE.nii.gz.

    Files are linked, except that references with label 4 and uncompressed files are written again.
    """
    for channel, file in enumerate(case.images):
        _link_image(file, images_dir / f"{case.case_id}_{channel:04d}.nii.gz")
    if case.reference is None:
        return
    target = labels_dir / f"{case.case_id}.nii.gz"
    if case.convention == "2023":
        _link_image(case.reference, target)
    elif not target.exists():
        write_image(target, *read_reference(case))


def _link_image(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.name.endswith(".nii.gz"):
        with whole_file(target) as temporary:
            sitk.WriteImage(sitk.ReadImage(str(source)), str(temporary), useCompression=True)
        return
    target.unlink(missing_ok=True)  # a link to a file that has moved
    try:
        target.symlink_to(source.resolve())
    except OSError:
        try:
            target.hardlink_to(source)
        except OSError:
            with whole_file(target) as temporary:
                shutil.copyfile(source, temporary)
