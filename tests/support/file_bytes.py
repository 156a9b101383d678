"""NIfTI files written byte by byte from their variants; see ``support.file_variants``."""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from support.file_variants import (
    DATATYPES,
    NAMING,
    CaseVariant,
    FileVariant,
    Space,
    encoded,
    ras_affine,
    rotation,
)

UNIT_CODES = {"unknown": 0, "meter": 1, "mm": 2, "micron": 3}
UNITS_PER_MM = {"unknown": 1.0, "meter": 1e-3, "mm": 1.0, "micron": 1e3}


def other_affine(affine: np.ndarray, how: str) -> np.ndarray:
    """Return the matrix of a form that says something else."""
    changed = affine.copy()
    if how == "moved":
        changed[:3, 3] += (2, -30, 5)
    elif how == "turned":
        changed[:3, :3] = rotation((0, 0, 20)) @ changed[:3, :3]
    elif how == "zoomed":
        changed[:3, :3] *= 1.5
    elif how == "sheared":
        changed[:3, 1] += 0.1 * changed[:3, 0]
    return changed


def header_of(variant: CaseVariant, role: str) -> np.ndarray:
    """Return a NIfTI header as a record of NumPy."""
    file, space = variant.files[role], variant.space
    kind = nibabel.Nifti1Header if file.version == 1 else nibabel.Nifti2Header
    header = np.zeros((), kind.template_dtype.newbyteorder(file.order))
    stored = encoded(variant, role)
    header["sizeof_hdr"] = header.dtype.itemsize
    header["magic"] = b"n+1" if file.version == 1 else b"n+2"
    if file.version == 2:
        header["eol_check"] = (13, 10, 26, 10)
    header["dim"] = (3 + file.trailing, *stored.shape, 1, 1, 1, 1)
    header["datatype"], header["bitpix"] = DATATYPES[file.dtype], 8 * stored.itemsize
    header["vox_offset"] = header.dtype.itemsize + 4 + file.extension
    header["scl_slope"], header["scl_inter"] = file.slope, file.inter
    header["xyzt_units"] = UNIT_CODES[space.units] | 8
    _put_forms(header, variant, role)
    for name, value in file.extra:
        header[name] = value
    return header


def _put_forms(header: np.ndarray, variant: CaseVariant, role: str) -> None:
    codes, affine = variant.codes(role), ras_affine(variant.space, variant.files[role])
    # ITK reads the sform where its code is 1 or where there is no other
    reads_sform = codes[0] > 0 and (codes[0] == 1 or codes[1] == 0)
    sform, qform = (affine, other_affine(affine, variant.forms.other))[:: 1 if reads_sform else -1]
    scale = UNITS_PER_MM[variant.space.units]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # a quaternion is always a rotation: that of the nearest perpendicular axes
    left, _, right = np.linalg.svd(qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0))
    direction = left @ right
    factor = -1.0 if np.linalg.det(direction) < 0 else 1.0
    turn = direction @ np.diag([1, 1, factor])
    quaternion = nibabel.quaternions.mat2quat(turn)
    header["pixdim"] = (factor, *spacing * scale, 1, 1, 1, 1)
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = quaternion[1:]
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = qform[:3, 3] * scale
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = sform[row] * scale
    header["sform_code"], header["qform_code"] = codes


def file_bytes(variant: CaseVariant, role: str) -> bytes:
    """Return a file's bytes before they are compressed: header, extensions, voxels."""
    return header_of(variant, role).tobytes() + extensions(variant.files[role]) + voxel_bytes(encoded(variant, role))


def voxel_bytes(stored: np.ndarray) -> bytes:
    """Return voxels as NIfTI orders them: the first axis changes fastest."""
    return stored.tobytes(order="F")


def extensions(file: FileVariant) -> bytes:
    """Return the four bytes that announce header extensions, and one extension: a comment."""
    if not file.extension:
        return bytes(4)
    return b"\1\0\0\0" + struct.pack(f"{file.order}ii", file.extension, 6).ljust(file.extension, b"x")


def packed(content: bytes, file: FileVariant) -> bytes:
    """Compress a file's bytes where its name says so, in one gzip member or several."""
    if not file.ending.lower().endswith(".gz"):
        return content
    size = -(-len(content) // file.members)
    return b"".join(
        gzip.compress(content[start : start + size], file.level, mtime=0) for start in range(0, len(content), size)
    )


def unpacked(content: bytes) -> bytes | None:
    """Return what a gzip file holds, or None where a member is damaged or incomplete."""
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error):
        return None


def read_with_nibabel(path: Path, file: FileVariant) -> np.ndarray:
    """Return a file's voxels as nibabel scales them; it gets the bytes, because it does not find every ending."""
    content = path.read_bytes()
    content = unpacked(content) if file.ending.lower().endswith(".gz") else content
    kind = nibabel.Nifti1Image if file.version == 1 else nibabel.Nifti2Image
    return np.asanyarray(kind.from_bytes(content).dataobj)


def write_plain_case(folder: Path, naming: str, name: str, volumes: dict[str, np.ndarray], spacing) -> None:
    """Write a case as plainly as possible: float32 images, uint8 labels, gzip, one orientation, both form codes 1.

    Args:
        folder: of the cases.
        naming: 2023 or 2018.
        name: of the case.
        volumes: by role, (x, y, z); labels of 2023.
        spacing: mm.
    """
    home = folder / name
    home.mkdir(parents=True)
    for role, volume in volumes.items():
        stored = volume.astype(np.float32)
        if role == "seg":
            stored = (np.where(volume == 3, 4, volume) if naming == "2018" else volume).astype(np.uint8)
        write_plain_volume(home / f"{name}{NAMING[naming][role]}.nii.gz", stored, spacing)


def write_plain_volume(path: Path, stored: np.ndarray, spacing: Sequence[float]) -> None:
    """Write voxels (x, y, z) under the plainest header."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1])
    affine[:3, 3] = Space().origin
    image = nibabel.Nifti1Image(stored, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
