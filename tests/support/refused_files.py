"""Files that have to be refused, and the words that a refusal has to hold."""

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support.odd_files import (
    FIRST_VOXEL,
    ROLES,
    around_the_head,
    as_bytes,
    colours,
    content_of,
    cut,
    fields,
    file_of,
    first_voxels,
    flipped,
    image_edit,
    in_a_folder,
    in_unit,
    inside_the_head,
    linked,
    named_pipe,
    other_voxels,
    put,
    put_raw,
    sheared,
    spaced,
    voxels_of,
    with_type,
    write,
)

NO_DATA = float(np.finfo("f4").min)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 2435817\n"
ANNEX = b"/annex/objects/SHA256E-s26093786--c3fd01f0787b14610c066b6b7454ff54cc719527111adf8bddc9a8af0a887d53.nii.gz\n"


@dataclass(frozen=True)
class Kind:
    """A way in which a file is odd.

    Args:
        make: changes a file in place.
        words: patterns that the problem has to match, without regard to case.
        role: the file of the case that is changed; "all": each of them.
        never: a pattern of advice that would mislead.
    """

    make: Callable[[Path], object]
    words: tuple[str, ...]
    role: str = "t2f"
    never: str = ""

    def apply(self, folder, case):
        """Change a case in place, and return the first changed file."""
        files = [file_of(folder, case, role) for role in (ROLES if self.role == "all" else (self.role,))]
        for file in files:
            self.make(file)
        return files[0]


def stored_in(unit_bytes):
    """Whole numbers that a slope alone makes too large."""

    def make(file):
        with_type("i2")(file)
        unit_bytes(file)

    return make


def zipped(file):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(file.name.removesuffix(".gz"), content_of(file))
    return buffer.getvalue()


def of_128_bits(file):
    """Write numpy's longdouble, which nibabel did under this type."""
    with_type("f8")(file)
    content = content_of(file)
    longer = np.frombuffer(content[FIRST_VOXEL:], "f8").astype(np.longdouble).tobytes()
    put(file, content[:FIRST_VOXEL] + longer)
    fields(datatype=1536, bitpix=128)(file)


def no_axes(image):
    image.set_sform(np.diag([0.0, 0, 0, 1]), 1)
    image.set_qform(None, 0)


def copy_of(role):
    """Another file of the case."""
    return lambda file: put_raw(file, file_of(file.parents[1], file.parent.name, role).read_bytes())


def copy_of_t1n_less_1024(file):
    copy_of("t1n")(file)
    other_voxels(lambda voxels: (voxels - 1024).astype("i2"))(file)


NOT_WHOLE = r"truncat|incomplete|complete|not whole|ended|bytes|end of|CRC|checksum|damaged|corrupt"
SPACING, UNIT = r"spacing|pixdim|extent", r"\bunit|xyzt"

VALUES = {
    "no-data value of float32": Kind(around_the_head(NO_DATA), (r"3\.4e\+?38", "no-data", r"\b0\b")),
    "no-data value, rounded": Kind(around_the_head(-3.4e38), (r"3\.4e\+?38", r"\b0\b")),
    "no-data value in one voxel": Kind(first_voxels(NO_DATA), (r"3\.4e\+?38",)),
    "squares that overflow": Kind(first_voxels(1e30, 9), (r"1e\+?30",)),
    "a sum of squares that overflows": Kind(around_the_head(1e19), (r"1e\+?19",)),
    "NaN": Kind(first_voxels(np.nan, 4), ("NaN|finite",)),
    "NaN around the head": Kind(around_the_head(np.nan), ("NaN|finite",)),  # nibabel issue 1002
    "infinity": Kind(first_voxels(-np.inf, 4), ("inf|finite",)),
    "NaN in double precision": Kind(first_voxels(np.nan, 4, "f8"), ("NaN|finite",)),
    "beyond single precision": Kind(first_voxels(1e39, 4, "f8"), (r"1e\+?39|float32|finite",)),
    "beyond single precision by a slope": Kind(
        stored_in(fields(scl_slope=1e36, scl_inter=0)), (r"e\+?3\d|float32|finite",)
    ),
    "a no-data value of double precision": Kind(around_the_head(-1e10), (r"-1e\+10", "contrast", r"no-data.* 0")),
    "a no-data value of 16 bits": Kind(
        other_voxels(lambda voxels: np.where(voxels == 0, -32768, voxels).astype("i2")),
        ("-32768", "contrast", "no-data"),
    ),
    "one voxel of another scale": Kind(first_voxels(1e17), (r"1e\+17", "contrast")),
    "labels": Kind(copy_of("seg"), ("one value",)),
    "zero everywhere": Kind(inside_the_head(0), ("zero|contrast|constant",)),
    "constant": Kind(other_voxels(lambda voxels: np.full_like(voxels, 5)), ("contrast|constant", r"\b5\b")),
    "constant inside the head": Kind(inside_the_head(7), ("contrast|constant", r"\b7\b")),
}
BYTES = {
    "not gzip": Kind(as_bytes(content_of), ("gzip", "rename")),
    "gzip twice": Kind(as_bytes(lambda file: gzip.compress(file.read_bytes())), ("gzip|NIfTI",), never="rename it"),
    "bzip2": Kind(as_bytes(lambda file: bz2.compress(content_of(file))), ("gzip|bzip2",)),
    "zip": Kind(as_bytes(zipped), ("gzip|zip",)),
    "empty": Kind(as_bytes(b""), (r"empty|\b0 bytes",)),
    "gzip of nothing": Kind(as_bytes(gzip.compress(b"")), (r"empty|\b0 bytes|NIfTI|header",)),
    "a web page": Kind(as_bytes(b"<!DOCTYPE html>\n<html>Sign in</html>\n"), ("gzip|page|HTML",), never="rename"),
    "a pointer of Git LFS": Kind(as_bytes(LFS), ("gzip|pointer|LFS",), never="rename"),
    "a pointer of git-annex": Kind(as_bytes(ANNEX), ("gzip|pointer|annex",), never="rename"),
    "DICOM": Kind(as_bytes(bytes(128) + b"DICM" + bytes(900)), ("gzip|DICOM",), never="rename"),
    "NRRD": Kind(as_bytes(b"NRRD0004\ntype: short\n\n" + bytes(900)), ("gzip|NRRD",), never="rename"),
    "packed text": Kind(as_bytes(gzip.compress(b"not an image\n" * 99)), ("NIfTI|header",)),
    "cut in the head of gzip": Kind(cut(5), (NOT_WHOLE,)),
    "cut in the header": Kind(cut(100), (NOT_WHOLE,)),
    "cut after 8192 bytes": Kind(cut(8192), (NOT_WHOLE,)),  # AFNI issue 397
    "cut in the middle": Kind(cut(0.5), (NOT_WHOLE,)),
    "cut before the checksum": Kind(cut(-8), (NOT_WHOLE,)),
    "cut by a byte": Kind(cut(-1), (NOT_WHOLE,)),
    "cut before it was packed": Kind(lambda file: put(file, content_of(file)[:9000]), (NOT_WHOLE,)),
    "a flipped byte": Kind(flipped(0.6), (NOT_WHOLE + "|gzip|invalid|Error -3",)),
    "a wrong checksum": Kind(flipped(-6), (NOT_WHOLE,)),
    "a wrong length": Kind(flipped(-2), (NOT_WHOLE + "|length",)),
}
NO_FILES = {
    "a folder": Kind(in_a_folder(inside=True), ("folder", "inside")),
    "an empty folder": Kind(in_a_folder(inside=False), ("folder",)),
    "a named pipe": Kind(named_pipe, ("pipe|not a file|regular",)),
    "a broken link": Kind(linked(Path("..", "gone", "a.nii.gz")), ("link", "gone")),
    "a link to itself": Kind(linked(), ("link|loop|symbolic",)),
    "a link to a device": Kind(linked("/dev/zero"), ("device|not a file|regular",)),
}
HEADERS = {
    "more voxels than the file": Kind(fields(dim={1: 900}), (r"900|dim|bytes",)),
    "more voxels than memory": Kind(fields(dim={1: 32767, 2: 32767, 3: 32767}), (r"32767|dim|bytes",)),
    "no dimension": Kind(fields(dim={0: 0}), ("dim",)),
    "eight dimensions": Kind(fields(dim={0: 8}), ("dim",)),
    "a negative size": Kind(fields(dim={1: -24}), (r"-24|dim|size",)),
    "a size of 0": Kind(fields(dim={2: 0}), (r"\b0\b",)),
    "an unknown type": Kind(fields(datatype=9999), (r"9999", "type|code")),
    "type 0": Kind(fields(datatype=0), (r"\b0\b", "type|code")),
    "a type larger than the data": Kind(fields(datatype=64, bitpix=64), (r"bytes|datatype|float64",), "t1n"),
    "a type smaller than the data": Kind(fields(datatype=2, bitpix=8), (r"bytes|datatype|uint8",), "t1n"),
    "bits that contradict the type": Kind(fields(bitpix=64), ("bitpix",), "t1n"),
    "data before the file": Kind(fields(vox_offset=-100), ("vox.?offset", "-100")),
    "data at the start of the file": Kind(fields(vox_offset=0), ("vox.?offset",)),
    "data in the header": Kind(fields(vox_offset=FIRST_VOXEL - 1), ("vox.?offset",)),
    "data a byte late": Kind(fields(vox_offset=FIRST_VOXEL + 1), ("vox.?offset|bytes",)),
    "data beyond the file": Kind(fields(vox_offset=1e9), ("vox.?offset|bytes",)),
    "data at NaN": Kind(fields(vox_offset=np.nan), ("vox.?offset|NaN",)),
    "an intercept of NaN": Kind(fields(scl_slope=1, scl_inter=np.nan), ("inter|scl", "nan")),
    "an infinite intercept": Kind(fields(scl_slope=1, scl_inter=np.inf), ("inter|scl", "inf")),
    "no magic": Kind(fields(magic=b""), ("NIfTI|magic|header|file type",)),
    "a quaternion longer than 1": Kind(fields(sform_code=0, quatern_b=1.2), ("quatern|qform|w2|direction",)),
    "an origin of NaN": Kind(fields(srow_x={3: np.nan}), ("origin|sform|affine", "nan")),
    "an axis of infinity": Kind(fields(srow_x={0: np.inf}, sform_code=1), ("sform", "infinite", "finite")),
    "a quaternion of NaN": Kind(fields(sform_code=0, qform_code=1, quatern_c=np.nan), ("qform", "nan")),
    "numbers of 128 bits": Kind(of_128_bits, ("128",)),  # nibabel issue 131
}
SHAPES = {
    "two volumes": Kind(
        other_voxels(lambda voxels: np.stack([voxels, voxels], -1)), (r"4.?D|4 dim|volumes", r"\b2\b|two")
    ),
    # as the Medical Segmentation Decathlon keeps BraTS: nnU-Net issue 1986
    "four modalities in one file": Kind(
        other_voxels(lambda voxels: np.stack([voxels] * 4, -1)), (r"4.?D|4 dim|volumes", r"\b4\b|four")
    ),
    "a vector field": Kind(
        other_voxels(lambda voxels: np.stack([voxels] * 3, -1)[:, :, :, None], "vector"),
        (r"5.?D|5 dim|components|vector|volumes",),
    ),
    "one slice": Kind(other_voxels(lambda voxels: voxels[:, :, 12]), (r"2.?D|2 dim",)),
    "a volume of one slice": Kind(other_voxels(lambda voxels: voxels[:, :, 12:13]), ("extent|size|slice",), "all"),
    "colours": Kind(other_voxels(colours), ("RGB|colour",)),
    "complex numbers": Kind(with_type("c8"), ("complex",)),
    "another size": Kind(other_voxels(lambda voxels: voxels[:-2]), ("size", r"\b22\b", r"\b24\b")),
}
GEOMETRY = {
    "sheared by 3 degrees": Kind(sheared(3), ("shear", r"\b3\b|\b2\.9|\b3\.0", "resample|qform")),
    "sheared by 10 degrees": Kind(sheared(10), ("shear", r"\b10\b|\b9\.9|\b10\.0", "resample|qform")),
    "no axes": Kind(image_edit(no_axes), ("sform|direction|singular|affine|axis|axes",)),
    "unit micron": Kind(in_unit("micron"), (SPACING, r"0\.001", UNIT, "micro|µm"), "all"),
    "unit meter": Kind(in_unit("meter"), (SPACING, r"1000", UNIT), "all"),
    "spacing of 0.01 mm": Kind(spaced(0.01, 0.01, 0.01), (SPACING, r"0\.01", UNIT), "all"),
    "spacing of 25 mm": Kind(spaced(1, 1, 25), (SPACING, r"\b25\b", UNIT), "all"),
    "an extent of 2.4 mm": Kind(spaced(0.1, 0.1, 0.1), ("extent", r"2\.4", UNIT), "all"),
    "spacing of 0": Kind(fields(pixdim={1: 0}), (SPACING,), "all"),
    "a negative spacing": Kind(fields(pixdim={1: -1}), (SPACING, "-1"), "all"),  # ITK issue 1484
    "spacing of NaN": Kind(fields(pixdim={2: np.nan}), (SPACING, "nan"), "all"),
    "another place": Kind(lambda file: write(file, voxels_of(file), np.diag([-1, -1, 1, 1.0])), ("origin",)),
}
IMAGES = VALUES | BYTES | NO_FILES | HEADERS | SHAPES | GEOMETRY

# of a case named as in 2023, whose masks hold 0, 1, 2 and 3
MASKS = (
    {
        "7": Kind(first_voxels(7, 5, "u1"), (r"\b7\b", r"\b5 voxels", "0, 1, 2, 3"), "seg"),
        "4 under names of 2023": Kind(first_voxels(4, 5, "u1"), (r"label 4\b", r"\b5 voxels"), "seg", "label 3"),
        "negative": Kind(first_voxels(-1, 3, "i2"), (r"-1\b",), "seg"),
        "255": Kind(first_voxels(255, 3, "u1"), (r"\b255\b",), "seg"),
        "1e9": Kind(first_voxels(1_000_000_000, 3, "i4"), (r"1000000000|1e\+?09",), "seg"),
        "0.5": Kind(first_voxels(0.5, 3), (r"\b0\.5\b",), "seg"),
        "2.99": Kind(first_voxels(2.99, 3), (r"\b2\.99",), "seg"),
        "0.9882": Kind(first_voxels(0.9882, 3, "f8"), (r"\b0\.9882\b",), "seg"),  # TorchIO issue 220
        "2.00123": Kind(first_voxels(2.00123, 3, "f8"), (r"\b2\.00123\b",), "seg"),
        "NaN": Kind(first_voxels(np.nan, 3), ("nan",), "seg"),
        "Hounsfield units": Kind(copy_of_t1n_less_1024, ("label", r"-1024\b"), "seg"),  # nnU-Net issue 1007
        "an image": Kind(copy_of("t1n"), ("label",), "seg"),
        "another size": Kind(other_voxels(lambda voxels: voxels[:, :-2]), ("size", r"\b22\b"), "seg"),
        "colours": Kind(other_voxels(colours), ("RGB|colour",), "seg"),
    }
    | {
        name: Kind(IMAGES[name].make, IMAGES[name].words, "seg")
        for name in (
            "another place",
            "a folder",
            "not gzip",
            "cut in the middle",
            "a wrong checksum",
            "sheared by 3 degrees",
            "two volumes",
        )
    }
)
