"""A case as nnU-Net sees it: its reader for voxels that are already read, and its raw folder.

nnU-Net's own reader would read the files once more and in its own way. The raw folder is for nnU-Net's own commands.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from uncseg.dataset.case_volumes import CaseVolumes
from uncseg.dataset.volumes import Geometry, Volume, write_volume
from uncseg.files import whole_file


class LoadedCase(SimpleITKIO):
    """nnU-Net's reader with the voxels of one case in place of files."""

    def __init__(self, volumes: CaseVolumes) -> None:
        self.volumes = volumes

    def read_images(self, _image_fnames: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the images, (C, D, H, W) float32, and nnU-Net's properties; the names are not looked at."""
        stacked = np.stack([image.voxels.astype(np.float32) for image in self.volumes.images])
        return stacked, properties_of(self.volumes.geometry)

    def read_seg(self, _seg_fname: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the labels, (1, D, H, W) float32, as nnU-Net's reader does."""
        assert self.volumes.labels is not None
        return self.volumes.labels[None].astype(np.float32), properties_of(self.volumes.geometry)


class LoadedCasePlans(PlansManager):
    """nnU-Net's plans, whose reader returns the voxels of one case."""

    def __init__(self, plans: dict[str, Any], volumes: CaseVolumes) -> None:
        super().__init__(plans)
        self.volumes = volumes

    @property
    def image_reader_writer_class(self) -> Any:
        """nnU-Net looks up a class by the plans' name; here it is called without arguments, as a class would be."""
        return lambda: LoadedCase(self.volumes)


def properties_of(geometry: Geometry) -> dict[str, Any]:
    """Return a geometry as nnU-Net's reader describes it; its own spacing is that of the array's axes."""
    itk = {"spacing": geometry.spacing_mm, "origin": geometry.origin_mm, "direction": geometry.direction}
    return {"sitk_stuff": itk, "spacing": list(geometry.spacing_dhw_mm)}


def write_raw_case(volumes: CaseVolumes, images_dir: Path, labels_dir: Path) -> list[Path]:
    """Put a case into nnU-Net's raw folder: CASE_0000.nii.gz … CASE_0003.nii.gz, and the reference CASE.nii.gz.

    A file that ITK reads as this program does is linked; any other is written again, labels as they are trained on.

    Returns:
        The files that are no links.
    """
    files = []
    case = volumes.case
    for channel, image in enumerate(volumes.images):
        target = images_dir / f"{case.case_id}_{channel:04d}.nii.gz"
        if image.plain and _same_grid(image, volumes.geometry):
            _link(image.file, target)
        else:
            write_volume(target, image.voxels.astype(np.float32), volumes.geometry)
        files.append(target)
    reference, target = volumes.reference, labels_dir / f"{case.case_id}.nii.gz"
    if reference is None or volumes.labels is None:
        return [file for file in files if not file.is_symlink()]
    stored = reference.plain and np.array_equal(reference.voxels, volumes.labels)  # just so, and ITK reads it too
    if stored and _same_grid(reference, volumes.geometry):
        _link(reference.file, target)
    else:
        write_volume(target, volumes.labels, volumes.geometry)
    return [file for file in (*files, target) if not file.is_symlink()]


def _same_grid(volume: Volume, geometry: Geometry) -> bool:
    """Return whether nnU-Net's commands, which are stricter than this program, see no difference."""
    own = volume.geometry
    fields = ("spacing_mm", "origin_mm", "direction")
    return all(np.allclose(getattr(own, field), getattr(geometry, field)) for field in fields)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link to a file that has moved, or a copy
    try:
        target.symlink_to(source.resolve())
    except OSError:
        try:
            target.hardlink_to(source)
        except OSError:
            with whole_file(target) as temporary:
                shutil.copyfile(source, temporary)
