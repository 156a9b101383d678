"""NIfTI files as bytes: header and voxels, or the cause why a file cannot be used.

nibabel reads the voxels. Whatever contradicts itself in a file is refused by name, because the libraries do not: ITK
fills truncated files with zeros and turns NaN into 0, nibabel stops reading before the checksum of a compressed file.
"""

import gzip
import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import nibabel
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from uncseg.errors import Problem, ProblemsFound, first_line

Header = nibabel.Nifti1Header | nibabel.Nifti2Header

_GZIP = b"\x1f\x8b"
_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_MATRICES = (1004, 1005, 1006)
"""Intent codes of a matrix or displacement per voxel, which ITK refuses or changes whatever the number of axes."""
_MAX_DEFLATION = 1032
"""Largest ratio of compression that gzip's format can reach."""
_OTHER_FORMATS = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"),
    (0, b"/annex/objects", "a git-annex pointer, not the file itself", "fetch the file: git annex get"),
    (0, b"<", "a web page or another text in angle brackets", "download it again; the server may ask for a login"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it"),
    (0, b"NRRD", "an NRRD file", "convert it to NIfTI"),
    (0, b"ObjectType", "a MetaImage file", "convert it to NIfTI"),
    (0, b"\x89HDF", "an HDF5 file", "convert it to NIfTI"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (128, b"DICM", "a DICOM file", "convert the series to NIfTI"),
)


MOST_VOXELS = 512**3
"""Largest image that is read, so that a file of nothing but zeros, packed or sparse, does not fill the memory."""


@dataclass(frozen=True)
class NiftiContent:
    """What a file holds.

    Args:
        header: nibabel's, as stored.
        voxels: (W, H, D) in stored order, scaled, read-only; trailing axes of length 1 are dropped.
        plain: whether ITK reads the same voxels: NIfTI-1, gzip, three axes, no scale factor, a usual type.
    """

    header: Header
    voxels: np.ndarray
    plain: bool


def refuse(file: Path, found: str, expected: str, advice: str) -> NoReturn:
    """Raise the problem of one file, with exit code 1."""
    raise ProblemsFound(f"{file.name} cannot be used.", [Problem(str(file), found, expected, advice)], exit_code=1)


def refuse_cause(file: Path, error: Exception) -> NoReturn:
    """Raise the problem of a file at which a library failed, with the library's words."""
    expected, advice = "a complete NIfTI image", "write or download it again, or exclude the case"
    if isinstance(error, OSError) and error.errno is not None:  # of the system: the file itself may be whole
        expected, advice = "a file that can be read", "correct its permissions or the storage, then try again"
    refuse(file, f"{type(error).__name__}: {first_line(error)[:160]}", expected, advice)


def read_nifti(file: Path) -> NiftiContent:
    """Read a file of one volume of real numbers, and verify that header and data agree.

    Raises:
        ProblemsFound: the file is of another kind, incomplete, or contradicts itself; with the library's cause.
    """
    compressed = _is_compressed(file)
    try:
        with gzip.open(file) if compressed else file.open("rb") as stream:
            header = _read_header(file, stream)
            shape = _check_header(file, header)
            data = _read_data(file, stream, header, shape, compressed)
        stored: np.ndarray = np.ndarray(shape, header.get_data_dtype(), data, order="F")
        voxels = apply_read_scaling(stored, *header.get_slope_inter())
    except ProblemsFound:
        raise
    except Exception as error:  # bytes from anywhere: whatever a library says, the other files are read
        refuse_cause(file, error)
    kind = "f8" if voxels.dtype.itemsize > 8 else voxels.dtype.newbyteorder("=")
    return NiftiContent(header, voxels.astype(kind, copy=False), compressed and _is_plain(file, header, shape))


def _is_compressed(file: Path) -> bool:
    """Return whether a file is gzip; refuse what is no file, and names that promise the other kind."""
    expected = "a NIfTI image"
    try:
        status = file.stat()
    except FileNotFoundError:
        found = f"a link to {file.readlink()}, which does not exist" if file.is_symlink() else "no file"
        refuse(file, found, expected, "restore the file, or exclude the case")
    except OSError as error:
        refuse(file, str(error.strerror), "a file that can be read", "correct its permissions or the link")
    if stat.S_ISDIR(status.st_mode):
        inside = ", ".join(sorted(path.name for path in file.iterdir())[:3]) or "nothing"
        refuse(file, f"a folder; the file is inside: {inside}", "a file", "move the file out of it, to this name")
    if not stat.S_ISREG(status.st_mode):
        refuse(file, "a pipe, socket or device", "a file", "replace it by a file, or exclude the case")
    if not status.st_size:
        refuse(file, "an empty file, 0 bytes", expected, "write or download it again, or exclude the case")
    try:
        with file.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        refuse(file, str(error.strerror), "a file that can be read", "correct its permissions or the storage")
    for offset, magic, what, advice in _OTHER_FORMATS:
        if start[offset:].startswith(magic):
            refuse(file, what, expected, advice)
    compressed, promised = start.startswith(_GZIP), file.name.lower().endswith(".gz")
    if compressed and not promised:
        refuse(file, "gzip data under a name without .gz", "uncompressed data", f"rename it to {file.name}.gz")
    if promised and not compressed and _header_class(start) is not None:
        found, name = "data that are not gzip under a name that ends in .gz", file.name[: -len(".gz")]
        refuse(file, found, "gzip data", f"rename it to {name}, or compress it")
    if promised and not compressed:
        found = f"{status.st_size} bytes that are neither gzip nor NIfTI, beginning with {start[:8].hex(' ')}"
        refuse(file, found, "a NIfTI image compressed with gzip", "write or download it again, or exclude the case")
    return compressed


def _header_class(start: bytes) -> type[Header] | None:
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        if len(start) >= kind.sizeof_hdr and kind.may_contain_header(start):
            return kind
    return None


def _read_header(file: Path, stream: io.BufferedIOBase | gzip.GzipFile) -> Header:
    start = stream.read(_NIFTI1_BYTES)
    kind = _header_class(start)
    if kind is None and len(start) == _NIFTI1_BYTES:
        start += stream.read(_NIFTI2_BYTES - _NIFTI1_BYTES)
        kind = _header_class(start)
    if kind is None:
        advice = "convert it with nibabel or dcm2niix, or download it again"
        refuse(file, f"no NIfTI header; the data begin with {start[:8].hex(' ')}", "a NIfTI image", advice)
    # nibabel would guess the order of bytes from dim, which may be wrong
    little = int.from_bytes(start[:4], "little") == kind.sizeof_hdr
    header = kind(start, endianness="<" if little else ">", check=False)
    if not header["magic"].item().startswith(b"n+"):
        found = f"a header of an image in two files ({header['magic'].item().decode('latin-1')})"
        refuse(file, found, "header and voxels in one file", "convert the pair .hdr and .img to NIfTI")
    return header


def _check_header(file: Path, header: Header) -> tuple[int, ...]:
    """Return the shape without trailing axes of length 1, of three axes."""
    advice = "write the file again with a correct header, or exclude the case"
    code, axes = int(header["datatype"]), int(header["dim"][0])
    if code not in nibabel.nifti1.data_type_codes.code:
        refuse(file, f"datatype {code} in the header, which NIfTI does not have", "a datatype of NIfTI", advice)
    dtype, shape = header.get_data_dtype(), tuple(int(n) for n in header["dim"][1 : 1 + axes])
    if not 1 <= axes <= 7 or min(shape) < 1:
        refuse(file, f"dim {_numbers(header['dim'])} in the header", "at least 1 voxel along each axis", advice)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if dtype.kind not in "iuf":
        other = f"datatype {code} ({nibabel.nifti1.data_type_codes.label[code]})"
        what = "colours (RGB)" if dtype.fields else {"c": "complex numbers"}.get(dtype.kind, other)
        refuse(file, f"{what} in each voxel", "one real number per voxel", "convert it to one channel of real numbers")
    if len(shape) != 3:
        volumes = f", {np.prod(shape[3:])} volumes" if len(shape) > 3 else ""
        found = f"{len(shape)} dimensions {_numbers(shape)}{volumes}"
        refuse(file, found, "one 3D volume", "split it into volumes, or exclude the case")
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        found = f"bitpix {int(header['bitpix'])} and datatype {dtype.name} in the header, which contradict each other"
        refuse(file, found, f"bitpix {8 * dtype.itemsize} for {dtype.name}", advice)
    offset, slope, intercept = (float(header[name]) for name in ("vox_offset", "scl_slope", "scl_inter"))
    if not (offset >= header.single_vox_offset and offset.is_integer()):
        found = f"vox_offset {offset:g} in the header, the byte at which the voxels begin"
        refuse(file, found, f"{header.single_vox_offset} or more, behind the header", advice)
    # NaN or 0 as slope means by definition that nothing is scaled
    if np.isinf(slope) or (slope and np.isfinite(slope) and not np.isfinite(intercept)):
        refuse(file, f"scl_slope {slope:g} and scl_inter {intercept:g} in the header", "finite scale factors", advice)
    return shape


def _numbers(values: np.ndarray | tuple[int, ...]) -> str:
    return f"({', '.join(str(int(value)) for value in values)})"


def _read_data(
    file: Path, stream: io.BufferedIOBase | gzip.GzipFile, header: Header, shape: tuple[int, ...], compressed: bool
) -> bytes:
    """Return the bytes of the voxels, and read to the end, where gzip verifies its checksum."""
    needed = int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize
    begin, size = int(header["vox_offset"]), file.stat().st_size
    if begin + needed > size * (_MAX_DEFLATION if compressed else 1):
        found = f"a header that promises {needed} bytes of voxels, {_numbers(shape)}, in a file of {size} bytes"
        refuse(file, found, "dimensions that fit the data", "download it again, or correct the header")
    if needed > MOST_VOXELS * header.get_data_dtype().itemsize:
        found, expected = f"{needed} bytes of voxels, {_numbers(shape)}", f"at most {MOST_VOXELS} voxels (512³)"
        refuse(file, found, expected, "crop or resample the image, or correct the header")
    stream.seek(begin)
    data = stream.read(needed)
    if len(data) < needed:
        found = f"an incomplete file: {len(data)} of {needed} bytes of voxels"
        refuse(file, found, "a complete NIfTI image", "write or download it again, or exclude the case")
    # padding is harmless, but a whole layer of voxels more means that size or type in the header are wrong
    layer, more = needed // max(shape), 0
    while more < layer and (rest := stream.read(1 << 20)):
        more += len(rest)
    if more >= layer:
        found = f"at least {more} bytes behind the {needed} bytes of voxels that the header names, {_numbers(shape)}"
        refuse(file, found, "a header that describes all data", "correct dimensions and datatype in the header")
    return data


def _is_plain(file: Path, header: Header, shape: tuple[int, ...]) -> bool:
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    return (
        file.name.endswith(".nii.gz")
        and header.sizeof_hdr == _NIFTI1_BYTES
        and int(header["dim"][0]) == len(shape)
        # where the slope says that nothing is scaled, ITK still adds the intercept, and multiplies real numbers by NaN
        and slope in (0, 1)
        and intercept == 0
        and int(header["intent_code"]) not in _MATRICES
        and header.get_data_dtype().itemsize <= 8
        and int(header["xyzt_units"]) & 7 in (0, 2)
    )
