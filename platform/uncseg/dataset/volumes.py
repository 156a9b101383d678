"""The one way to read and write a volume: voxels as nibabel gives them, geometry as ITK gives it.

Checks, preparation, training, prediction and scores all use it, so a file means the same everywhere. ITK's geometry is
that of the images that nnU-Net and this program write. Arrays are (D, H, W), geometries (x, y, z).
"""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from uncseg.dataset.finite import count_not_finite
from uncseg.dataset.nifti_file import Header, read_nifti, refuse, refuse_cause
from uncseg.errors import Problem, ProblemsFound, first_line
from uncseg.files import not_whole, whole_file

GEOMETRY_TOLERANCE = 1e-3
"""Largest difference in spacing (mm), origin (mm) and direction cosines between the files of a case."""
SPACING_MM = (0.1, 20.0)
EXTENT_MM = (10.0, 1000.0)
_FORMS = {
    "sform": ("srow_x", "srow_y", "srow_z"),
    "qform": ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
}
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_IN_MM = {1: 1e3, 3: 1e-3}


@dataclass(frozen=True)
class Geometry:
    """Where the voxels lie, in ITK's (and DICOM's) coordinates."""

    size: tuple[int, int, int]
    """Voxels along x, y, z."""
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    """Centre of the first voxel."""
    direction: tuple[float, ...]
    """Nine cosines, row by row: the columns are the axes' directions."""

    @property
    def spacing_dhw_mm(self) -> tuple[float, float, float]:
        """Voxel size along the axes of an array (D, H, W)."""
        x, y, z = self.spacing_mm
        return z, y, x


@dataclass(frozen=True)
class Volume:
    """The voxels of one file.

    Args:
        file: its path.
        voxels: (D, H, W), as stored, with the header's scale factors applied.
        geometry: position and size.
        plain: whether ITK reads the same voxels from the file.
        sform_distance_mm: how far the header's sform places a voxel from where ITK does, at most.
    """

    file: Path
    voxels: np.ndarray
    geometry: Geometry
    plain: bool = True
    sform_distance_mm: float = 0.0


def read_volume(file: Path) -> Volume:
    """Read one volume from a NIfTI file, compressed or not.

    Raises:
        ProblemsFound: one problem that names the file and the cause, with exit code 1.
    """
    content = read_nifti(file)
    try:
        geometry = _read_geometry(file, content.header, content.voxels.shape)
        distance = _sform_distance_mm(content.header, geometry)
    except ProblemsFound:
        raise
    except Exception as error:  # a header from anywhere
        refuse_cause(file, error)
    return Volume(file, content.voxels.T, geometry, content.plain, distance)


def read_or_note(file: Path, problems: list[Problem]) -> Volume | None:
    """Return a volume, or add the problem of its file and return None."""
    try:
        return read_volume(file)
    except ProblemsFound as error:
        problems += error.problems
        return None


def _read_geometry(file: Path, header: Header, shape: tuple[int, ...]) -> Geometry:
    """Let ITK read the geometry of a header, and refuse voxels of another size than a head's.

    ITK gets the header in a file of its own, so names, compression, type and NIfTI-2 make no difference to it.
    """
    if max(shape) > np.iinfo(np.int16).max:
        refuse(file, f"size {shape}", f"at most {np.iinfo(np.int16).max} voxels along an axis", "crop the image")
    block = nibabel.Nifti1Header.from_header(header, check=False)
    block.set_data_shape(shape)
    block.set_data_dtype(np.uint8)
    block["vox_offset"], block["magic"], block["sizeof_hdr"] = nibabel.Nifti1Header.single_vox_offset, b"n+1", 348
    block["intent_code"] = 0  # of several numbers per voxel, which are refused by their dimensions
    advice = "write the file again with a qform or sform of perpendicular axes, or exclude the case"
    form = next((form for form in ("sform", "qform") if int(header[f"{form}_code"]) > 0), None)
    if form and not all(np.isfinite(header[name]).all() for name in _FORMS[form]):  # ITK would print, or read 0
        refuse(file, f"a position or direction that is NaN or infinite in the {form}", "finite numbers", advice)
    with _temporary_folder() as folder:
        copy = Path(folder, "header.nii")
        copy.write_bytes(block.binaryblock + bytes(4))
        sitk.ProcessObject.GlobalWarningDisplayOff()  # of two geometries in a header ITK takes one, and says so
        reader = sitk.ImageFileReader()
        reader.SetImageIO("NiftiImageIO")
        reader.SetFileName(str(copy))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            if (degrees := _shear_degrees(header)) > 0:
                found = f"axes that are sheared by {degrees:.3g} degrees in the sform"
                refuse(file, found, "perpendicular axes", "resample it, or set the qform")
            cause = str(error).strip().splitlines()[-1].replace(str(copy), file.name)
            refuse(file, f"a geometry that ITK refuses: {cause[:160]}", "perpendicular axes", advice)
    geometry = Geometry(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    if not np.isfinite([*geometry.spacing_mm, *geometry.origin_mm, *geometry.direction]).all():
        refuse(file, "a position or direction that is NaN or infinite in the header", "finite numbers", advice)
    _require_size_of_head(file, header, geometry)
    return geometry


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Yield a folder that is removed at the end; where it cannot be used, no file of a case is to blame."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    except OSError as error:
        found, advice = f"{error.strerror or error}", "free some space there, or set TMPDIR to another folder"
        refuse(Path(tempfile.gettempdir()), found, "a folder for temporary files that can be written", advice)


def _require_size_of_head(file: Path, header: Header, geometry: Geometry) -> None:
    unit = f"the header's unit field (xyzt_units) says {_UNITS.get(int(header['xyzt_units']) & 7, 'an unknown code')}"
    advice = "correct voxel size and unit in the header, or resample the image"
    expected = "{:g} to {:g} mm along each axis"
    stored = header["pixdim"][1:4].tolist()
    if not all(np.isfinite(stored)) or 0 in stored:  # ITK would take 1 mm instead
        refuse(file, f"spacing {_short(stored)} (pixdim); {unit}", expected.format(*SPACING_MM), advice)
    extents = [n * mm for n, mm in zip(geometry.size, geometry.spacing_mm, strict=True)]
    for what, values, (low, high) in (("spacing", geometry.spacing_mm, SPACING_MM), ("extent", extents, EXTENT_MM)):
        # single precision in headers makes 0.1 a little more or less
        if min(values) < low * (1 - 1e-5) or max(values) > high * (1 + 1e-5):
            refuse(file, f"{what} {_short(values)} mm; {unit}", expected.format(low, high), advice)


def _sform_distance_mm(header: Header, geometry: Geometry) -> float:
    """Return the largest distance, at the corners of the volume, between the header's sform and ITK's geometry.

    Where sform and qform differ, ITK takes one of them; NIfTI's x and y point the other way. 0 without an sform.
    """
    if int(header["sform_code"]) <= 0:
        return 0.0
    millimetres = _IN_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    last = np.array(geometry.size) - 1
    corners = np.array([[x, y, z] for x in (0, last[0]) for y in (0, last[1]) for z in (0, last[2])])
    sform = nibabel.affines.apply_affine(header.get_sform(), corners) * millimetres * (-1, -1, 1)
    axes = np.reshape(geometry.direction, (3, 3)) * geometry.spacing_mm
    return float(np.linalg.norm(sform - (corners @ axes.T + geometry.origin_mm), axis=1).max())


def _shear_degrees(header: Header) -> float:
    """Return how far the axes of the header's sform are from perpendicular."""
    axes = header.get_sform()[:3, :3]
    axes = axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-12)
    cosines = axes.T @ axes - np.eye(3)
    return float(np.degrees(np.arcsin(np.clip(np.abs(cosines).max(), 0, 1)))) if np.isfinite(cosines).all() else 0.0


def geometry_problems(volume: Volume, like: Volume, tolerance: float = GEOMETRY_TOLERANCE) -> list[Problem]:
    """Return how the grid of ``volume`` differs from that of ``like``: in size, or in each of spacing, origin, axes."""
    mine, its = volume.geometry, like.geometry
    names = {"size": "size", "spacing_mm": "spacing (mm)", "origin_mm": "origin (mm)", "direction": "direction"}
    problems = []
    for field, name in names.items():
        ours, theirs = getattr(mine, field), getattr(its, field)
        if np.allclose(ours, theirs, rtol=0, atol=0 if field == "size" else tolerance):
            continue
        found, expected = f"{name} {_short(ours)}", f"{_short(theirs)}, as {like.file.name}"
        problems.append(Problem(str(volume.file), found, expected, "resample it onto the same grid"))
    return problems


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.7g}" for value in values) + ")"


def write_volume(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Write (D, H, W) voxels as compressed NIfTI; never a partial file, and never voxels that are not finite.

    ITK does not tell when a disk is full, so the file is read back before it gets its name.

    Raises:
        ProblemsFound: voxels are NaN or infinite; nothing is written (exit code 1).
        OSError: the disk is full, or holds other bytes than those that were written.
    """
    if wrong := count_not_finite(array):
        found = f"{wrong} of {array.size} voxels that are NaN or infinite"
        refuse(path, found, "finite values", "check the model and the images; nothing was written")

    def verify(file: Path) -> None:
        try:
            written = read_nifti(file).voxels.T  # to the checksum at the end
        except ProblemsFound as error:
            raise not_whole(path, error.problems[0].found) from error
        if not np.array_equal(written, array):
            raise not_whole(path, "other voxels")

    image = as_itk(array, geometry)
    with whole_file(path, verify=verify) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise not_whole(path, first_line(error)) from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Write NAME.npy, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with whole_file(path) as temporary:  # NumPy itself writes past Python's file, which would tell of a full disk
        temporary.write_bytes(content.getbuffer())


def as_itk(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    """Return voxels (D, H, W) as ITK's image."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)
    return image
