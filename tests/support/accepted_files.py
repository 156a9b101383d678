"""Files that say the same voxels in another way: they are accepted, and give the same figures as plain ones."""

import gzip

import nibabel as nib
import numpy as np

from support.odd_files import (
    ROLES,
    as_bytes,
    content_of,
    extended,
    fields,
    file_of,
    image_edit,
    in_unit,
    other_voxels,
    put,
    sheared,
    spaced,
    voxels_of,
    with_type,
    write,
)

IMAGES = ROLES[:4]
MASK = ROLES[4:]


def form_codes(qform, sform):
    """Form codes of 0 (absent) or more; what is there holds the file's affine."""

    def edit(image):
        affine = image.affine
        image.set_qform(affine if qform else None, qform)
        image.set_sform(affine if sform else None, sform)

    return image_edit(edit)


def another_qform(image):
    turned = image.affine.copy()
    turned[:3, :3] = [[-0.8, 0.6, 0], [-0.6, -0.8, 0], [0, 0, 1]]
    turned[:3, 3] += 30
    image.set_sform(image.affine, 1)
    image.set_qform(turned, 2)


def other_scales(image):
    """Give the sform voxels of 2 mm, which pixdim does not; code 0 of the qform."""
    affine = image.affine.copy()
    affine[:3, :3] *= 2
    sizes = image.header["pixdim"].copy()
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    image.header["pixdim"] = sizes


def long_quaternion(file):
    """Leave the qform alone, with a quaternion that rounding made a little longer than 1."""
    form_codes(1, 0)(file)
    fields(quatern_d=1 + 1e-6)(file)


def mirrored(file):
    affine = nib.load(file).affine
    affine[0] *= -1
    write(file, voxels_of(file), affine)


def big_endian(file):
    image = nib.load(file)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(image.get_data_dtype().newbyteorder(">"))
    put(file, nib.Nifti1Image(voxels_of(file), image.affine, header).to_bytes())


def second_version(file):
    write(file, voxels_of(file), kind=nib.Nifti2Image)


def scaled(factor, dtype):
    """Voxels times a factor, which the slope takes back."""

    def make(file):
        write(file, (voxels_of(file) * factor).astype(dtype))
        fields(scl_slope=1 / factor, scl_inter=0)(file)

    return make


def noisy(voxels):
    return (voxels + np.random.default_rng(0).uniform(-1e-4, 1e-4, voxels.shape)).astype("f4")


def flagged(file):
    """Say that there is an extension, without one."""
    content = bytearray(content_of(file))
    content[348] = 1
    put(file, bytes(content))


def in_members(file):
    content = content_of(file)
    return gzip.compress(content[:1000]) + gzip.compress(content[1000:])


# which files of a case are changed, and how
VARIANTS = {
    "no form code": (ROLES, form_codes(0, 0)),
    "sform alone": (ROLES, form_codes(0, 1)),
    "qform alone": (ROLES, form_codes(1, 0)),
    "code 2 beside 1": (ROLES, form_codes(1, 2)),
    "forms that differ": (ROLES, image_edit(another_qform)),
    "a sheared sform beside a qform": (ROLES, sheared(3, qform=True)),
    "an sform of other scales": (ROLES, image_edit(other_scales)),  # nnU-Net issue 2741
    "a quaternion a little longer than 1": (ROLES, long_quaternion),  # nibabel issue 626
    "a mask 1e-5 mm away": (MASK, fields(srow_x={3: 1e-5}, qoffset_x=1e-5)),  # PyRadiomics issue 226
    "a mirrored axis": (ROLES, mirrored),
    "a trailing axis": (ROLES, other_voxels(lambda voxels: voxels[..., None])),
    "three trailing axes": (ROLES, other_voxels(lambda voxels: voxels[..., None, None, None])),
    "a trailing axis of the mask": (MASK, other_voxels(lambda voxels: voxels[..., None])),
    "micron": (ROLES, spaced(1000, 1000, 1000, unit="micron")),
    "meter": (ROLES, spaced(0.001, 0.001, 0.001, unit="meter")),
    "an unknown unit": (ROLES, in_unit("unknown")),
    "slope 0": (ROLES, fields(scl_slope=0, scl_inter=0)),
    "slope 0 and an intercept": (IMAGES, fields(scl_slope=0, scl_inter=5)),
    "slope NaN": (ROLES, fields(scl_slope=np.nan, scl_inter=np.nan)),
    "the second version of NIfTI": (ROLES, second_version),  # which ITK does not read: ITK issue 3639
    "big endian": (ROLES, big_endian),
    "an extension": (ROLES, extended(32, b"x" * 24)),
    "an extension of 24 bytes": (ROLES, extended(24, b"x" * 16)),  # nifti-zarr issue 11
    "an extension beyond the file": (ROLES, extended(4096, b"x" * 24)),
    "an extension that is flagged and absent": (ROLES, flagged),  # NIFTI-Reader-JS issue 35
    "double precision": (ROLES, with_type("f8")),
    "64-bit labels": (MASK, with_type("i8")),
    "16-bit labels": (MASK, with_type("u2")),
    "labels in single precision": (MASK, with_type("f4")),
    "labels with noise": (MASK, other_voxels(noisy)),
    "labels of 2.9999999993": (MASK, other_voxels(lambda voxels: voxels * 0.99999999976)),  # nibabel issue 1344
    "labels by a slope": (MASK, scaled(85, "u1")),
    "an image by a slope": (("t1n",), scaled(2, "i2")),
    "several members of gzip": (ROLES, as_bytes(in_members)),
    "zeros behind gzip": (ROLES, as_bytes(lambda file: file.read_bytes() + bytes(512))),
}


def apply_variant(name, folder, case):
    """Change the files of a case."""
    roles, make = VARIANTS[name]
    for role in roles:
        make(file_of(folder, case, role))
