"""NIfTI files as real folders hold them: headers, bytes and voxels of a plain file changed in place."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np

ROLES = ("t1n", "t1c", "t2w", "t2f", "seg")
OLD_ENDINGS = dict(zip(ROLES, ("_t1", "_t1ce", "_t2", "_flair", "_seg"), strict=True))
HEADER = nib.Nifti1Header.template_dtype  # names and places of the fields of the first 348 bytes
FIRST_VOXEL = 352


def file_of(folder, case, role):
    """Return the file of a phantom."""
    return Path(folder, case, f"{case}-{role}.nii.gz")


def voxels_of(file):
    """Return the voxels with the scale factors applied, in the file's order of axes."""
    return np.asanyarray(nib.load(file).dataobj).copy()


def content_of(file):
    """Return the bytes of a NIfTI file, unpacked."""
    content = Path(file).read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def put_raw(file, content):
    """Write bytes as they are in a file's place; a link is replaced and not followed."""
    Path(file).unlink(missing_ok=True)
    Path(file).write_bytes(content)


def put(file, content):
    """Write the bytes of a NIfTI file in a file's place, packed as its ending says."""
    packed = Path(file).name.lower().endswith(".gz")
    put_raw(file, gzip.compress(content, compresslevel=1, mtime=0) if packed else content)


def write(file, voxels, affine=None, edit=None, kind=nib.Nifti1Image):
    """Write voxels in a file's place.

    Args:
        file: NIfTI file.
        voxels: any shape and type.
        affine: None: the file's own.
        edit: called with the new image, to change its header.
        kind: class of the new image.
    """
    header = kind.header_class()
    header.set_data_dtype(voxels.dtype)
    image = kind(voxels, nib.load(file).affine if affine is None else affine, header)
    image.header.set_xyzt_units("mm")
    if edit:
        edit(image)
    put(file, image.to_bytes())


# each function below returns a change: a function that is called with a file


def fields(**values):
    """Fields of the header, set without any check; ``dim={1: 900}`` sets one entry of an array."""

    def make(file):
        content = bytearray(content_of(file))
        header = np.frombuffer(content, dtype=HEADER, count=1)
        for name, value in values.items():
            if isinstance(value, dict):
                header[name][0, list(value)] = list(value.values())
            else:
                header[name][0] = value
        put(file, bytes(content))

    return make


def image_edit(edit):
    """What ``edit`` does to the header by nibabel's own methods; voxels and scale factors stay."""

    def make(file):
        image = nib.load(file)
        other = nib.Nifti1Image(voxels_of(file), image.affine, image.header)
        edit(other)
        put(file, other.to_bytes())

    return make


def other_voxels(edit, intent=None):
    """The voxels that ``edit`` makes of the file's own, under a fresh header with the same affine."""

    def set_intent(image):
        if intent:
            image.header.set_intent(intent)

    return lambda file: write(file, edit(voxels_of(file)), edit=set_intent)


def with_type(dtype):
    """The same voxels, stored with another type."""
    return other_voxels(lambda voxels: voxels.astype(dtype))


def first_voxels(value, count=1, dtype="f4"):
    """A value in the first voxels, and a type that holds it."""

    def edit(voxels):
        voxels = voxels.astype(dtype)
        voxels.flat[:count] = value
        return voxels

    return other_voxels(edit)


def around_the_head(value):
    """A value in all voxels that were 0, in single precision."""
    return other_voxels(lambda voxels: np.where(voxels == 0, np.float32(value), voxels.astype("f4")))


def inside_the_head(value):
    """A value in all voxels that were not 0."""
    return other_voxels(lambda voxels: np.where(voxels != 0, np.asarray(value, voxels.dtype), 0).astype(voxels.dtype))


def colours(voxels):
    """Return the voxels as red, green and blue of one byte each."""
    found = np.zeros(voxels.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name in found.dtype.names:
        found[name] = voxels / max(float(voxels.max()), 1) * 255
    return found


def spaced(*spacing, unit="mm"):
    """Another spacing, on which form codes and ``pixdim`` agree."""
    affine = np.diag([*spacing, 1.0])
    return lambda file: write(file, voxels_of(file), affine, lambda image: image.header.set_xyzt_units(unit))


def in_unit(name):
    """Another unit, with the same numbers."""
    return image_edit(lambda image: image.header.set_xyzt_units(name))


def sheared(degrees, qform=False):
    """An sform whose second axis leans towards the first; beside the true qform, or alone."""

    def edit(image):
        true, affine, angle = image.affine, image.affine.copy(), np.radians(degrees)
        affine[:3, 1] = np.cos(angle) * true[:3, 1] + np.sin(angle) * true[:3, 0]
        image.set_sform(affine, 1)
        image.set_qform(true if qform else None, int(qform))

    return image_edit(edit)


def extended(size, content):
    """An extension of the header that says it has ``size`` bytes."""

    def make(file):
        plain = bytearray(content_of(file))
        plain[348] = 1
        extension = size.to_bytes(4, "little") + (6).to_bytes(4, "little") + content
        put(file, bytes(plain[:FIRST_VOXEL] + extension + plain[FIRST_VOXEL:]))
        fields(vox_offset=FIRST_VOXEL + len(extension))(file)

    return make


def as_bytes(content):
    """Bytes that are not NIfTI; a function is called with the file."""
    return lambda file: put_raw(file, content(file) if callable(content) else content)


def cut(end):
    """The first bytes of the file as it lies: up to a place, counted from its end if negative, or a share of it."""
    return lambda file: put_raw(file, file.read_bytes()[: int(end * file.stat().st_size) if 0 < end < 1 else end])


def flipped(place):
    """One byte of the packed file inverted: at a share of its length, or counted from its end if negative."""

    def make(file):
        content = bytearray(file.read_bytes())
        content[int(place * len(content)) if place > 0 else place] ^= 0xFF
        put_raw(file, bytes(content))

    return make


def in_a_folder(inside):
    """A folder in the file's place, as some unpackers make it, with the file inside or nothing."""

    def make(file):
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        if inside:
            (file / file.name).write_bytes(content)

    return make


def named_pipe(file):
    """A pipe in the file's place: opening it waits for a writer, forever."""
    file.unlink()
    os.mkfifo(file)


def linked(target=None):
    """A link in the file's place; None: to itself."""

    def make(file):
        file.unlink()
        file.symlink_to(file.name if target is None else target)

    return make


def rename(folder, case, other, ending=None):
    """Give a case another name; its empty folder stays.

    Args:
        folder: holds the case.
        case: the name of its folder, with which its files begin.
        other: the new name, or the path of the new folder.
        ending: returns the new ending of a role's file; None: the old one.

    Returns:
        The new folder.
    """
    target = Path(folder, other)
    target.mkdir(parents=True)
    for role in ROLES:
        new = f"-{role}.nii.gz" if ending is None else ending(role)
        file_of(folder, case, role).rename(target / f"{target.name}{new}")
    return target


def as_2018(folder, case, other):
    """Name a case as until 2021; its labels stay."""
    return rename(folder, case, other, lambda role: f"{OLD_ENDINGS[role]}.nii.gz")
