"""Ways to damage a file of a small case, what a check has to do with each, and the words that its cause needs.

Most ways must be refused. Of a flipped bit it depends on the bit, so that either is right.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from support.file_bytes import UNIT_CODES, extensions, file_bytes, header_of, packed, unpacked, voxel_bytes
from support.file_variants import ROLES, CaseVariant, Damage, FileVariant, encoded

IMAGES, REFERENCE = ("t1n", "t1c", "t2w", "t2f"), ("seg",)
ANY = (*IMAGES, *REFERENCE)
Make = Callable[[CaseVariant, Damage], bytes]


@dataclass(frozen=True)
class Kind:
    """A way to damage a file.

    Args:
        make: returns the file's bytes.
        cause: a regular expression for the cause that must be given; empty: the damage may also be harmless.
        roles: files that can be damaged in this way.
        amounts: values of ``Damage.amount``.
    """

    make: Make
    cause: str
    roles: tuple[str, ...] = ANY
    amounts: tuple[float, ...] = (0.0,)


def write_case(folder: Path, variant: CaseVariant) -> dict[str, Path]:
    """Write a case's files, with what is wrong with one of them, and return them by role."""
    home, damage = folder / variant.case_id, variant.damage
    home.mkdir(parents=True)
    files = {role: home / variant.file_name(role) for role in ROLES}
    for role, file in files.items():
        if damage is None or damage.role != role:
            file.write_bytes(packed(file_bytes(variant, role), variant.files[role]))
        elif damage.kind == "folder":
            file.mkdir()
            (file / "image.nii").write_bytes(file_bytes(variant, role))
        elif damage.kind != "missing":
            file.write_bytes(KINDS[damage.kind].make(variant, damage))
    return files


def must_be_refused(variant: CaseVariant) -> bool:
    """Return whether a damaged case may not be accepted: a flipped bit that breaks the compression is no choice."""
    damage = variant.damage
    if damage is None:
        return False
    if damage.kind == "moved" and not any(variant.codes(damage.role)):
        return False  # without a form nothing says where the voxels lie
    if damage.kind == "unit" and damage.amount == UNIT_CODES[variant.space.units]:
        return False
    if damage.kind == "flipped bit of the file" and variant.files[damage.role].ending.lower().endswith(".gz"):
        return unpacked(KINDS[damage.kind].make(variant, damage)) is None
    return bool(KINDS[damage.kind].cause)


def _file(variant: CaseVariant, damage: Damage, header: np.ndarray, voxels: bytes) -> bytes:
    file = variant.files[damage.role]
    return packed(header.tobytes() + extensions(file) + voxels, file)


def _with_header(change: Callable[[np.ndarray, Damage], None], padding: int = 0) -> Make:
    """Return a way to change the header alone; ``padding`` bytes are added, so that the voxels are not too few."""

    def make(variant: CaseVariant, damage: Damage) -> bytes:
        header = header_of(variant, damage.role)
        change(header, damage)
        return _file(variant, damage, header, voxel_bytes(encoded(variant, damage.role)) + bytes(padding))

    return make


def _with_voxels(dtype: str, change: Callable[[np.ndarray, Damage], np.ndarray | None]) -> Make:
    """Return a way to change the voxels, which are stored without a scale in a given type."""

    def make(variant: CaseVariant, damage: Damage) -> bytes:
        changed = variant.with_file(damage.role, dtype=dtype, slope=1.0, inter=0.0, noise=0.0)
        voxels = encoded(changed, damage.role)
        voxels = voxels if (other := change(voxels, damage)) is None else other
        return _file(changed, damage, header_of(changed, damage.role), voxel_bytes(voxels.astype(voxels.dtype)))

    return make


def _truncated(variant: CaseVariant, damage: Damage) -> bytes:
    whole = packed(file_bytes(variant, damage.role), variant.files[damage.role])
    return whole[: int(damage.place * (len(whole) - 1))]


def _flipped(content: bytes, place: float, bit: float) -> bytes:
    changed = bytearray(content)
    changed[int(place * (len(changed) - 1))] ^= 1 << int(bit)
    return bytes(changed)


def _flipped_file(variant: CaseVariant, damage: Damage) -> bytes:
    whole = packed(file_bytes(variant, damage.role), variant.files[damage.role])
    return _flipped(whole, damage.place, damage.amount)


def _flipped_header(variant: CaseVariant, damage: Damage) -> bytes:
    header, content = header_of(variant, damage.role).tobytes(), file_bytes(variant, damage.role)
    changed = _flipped(header, damage.place, damage.amount) + content[len(header) :]
    return packed(changed, variant.files[damage.role])


def _flipped_voxels(variant: CaseVariant, damage: Damage) -> bytes:
    voxels = _flipped(voxel_bytes(encoded(variant, damage.role)), damage.place, damage.amount)
    return _file(variant, damage, header_of(variant, damage.role), voxels)


def _longer(header: np.ndarray, damage: Damage) -> None:
    header["dim"][1 + int(damage.place * 2.99)] += int(damage.amount)


def _datatype(header: np.ndarray, damage: Damage) -> None:
    bits = {0: 0, 1: 1, 32: 64, 128: 24, 1536: 128, 1792: 128, 2304: 32}
    header["datatype"], header["bitpix"] = int(damage.amount), bits.get(int(damage.amount), 16)


def _offset(header: np.ndarray, damage: Damage) -> None:
    header["vox_offset"] = damage.amount if header["vox_offset"].dtype.kind == "f" else int(damage.amount)


def _sheared(header: np.ndarray, damage: Damage) -> None:
    header["sform_code"], header["qform_code"] = 2, 0
    rows = np.stack([header[name] for name in ("srow_x", "srow_y", "srow_z")])
    # the second axis leans towards the first
    rows[:, 1] += damage.amount * rows[:, 0] * np.linalg.norm(rows[:, 1]) / np.linalg.norm(rows[:, 0])
    for name, row in zip(("srow_x", "srow_y", "srow_z"), rows, strict=True):
        header[name] = row


def _unit(header: np.ndarray, damage: Damage) -> None:
    header["xyzt_units"] = int(damage.amount) | 8


def _dimensions(header: np.ndarray, damage: Damage) -> None:
    x, y, z = header["dim"][1:4]
    volumes = (4, x, y, z, int(damage.amount), 1, 1, 1)
    header["dim"] = (2, x, y * z, 1, 1, 1, 1, 1) if damage.amount == 1 else volumes


def _put(voxels: np.ndarray, damage: Damage) -> None:
    start = int(damage.place * (voxels.size - 9))
    voxels.flat[start : start + 8] = damage.amount


def _put_no_data(voxels: np.ndarray, damage: Damage) -> None:
    voxels[voxels == 0] = damage.amount


def _constant(voxels: np.ndarray, damage: Damage) -> np.ndarray:
    everywhere = damage.place < 0.5
    return np.where((voxels != 0) | everywhere, damage.amount, 0).astype(voxels.dtype)


def _noisy(variant: CaseVariant, damage: Damage) -> bytes:
    changed = variant.with_file(damage.role, dtype="f4", slope=1.0, inter=0.0, noise=damage.amount)
    return packed(file_bytes(changed, damage.role), changed.files[damage.role])


def _wrong_label(variant: CaseVariant, damage: Damage) -> bytes:
    # 0: the enhancing tumour of the other naming
    label = damage.amount or {"2023": 4, "2018": 3}[variant.naming]
    return _with_voxels("f4", _put)(variant, replace(damage, amount=label))


def _moved(variant: CaseVariant, damage: Damage) -> bytes:
    shift = [0.0, 0.0, 0.0]
    shift[int(damage.place * 2.99)] = damage.amount
    changed = variant.with_file(damage.role, shift=tuple(shift))
    return packed(file_bytes(changed, damage.role), changed.files[damage.role])


def _other_packing(variant: CaseVariant, damage: Damage) -> bytes:
    zipped = variant.files[damage.role].ending.lower().endswith(".gz")
    return packed(file_bytes(variant, damage.role), FileVariant(ending=".nii" if zipped else ".nii.gz"))


def _web_page(variant: CaseVariant, damage: Damage) -> bytes:
    page = b"<!DOCTYPE html><html><body>You do not have access to this file.</body></html>\n" * int(
        1 + 9 * damage.place
    )
    return packed(page, variant.files[damage.role]) if damage.amount else page


ALL_BITS = tuple(range(8))
MISFIT = "size|byte|dim|voxel|header|whole|complete|end"
NO_NUMBER, OVERFLOW = "NaN|infinite|finite", "finite|overflow|too large|values up to"
KINDS = {
    "truncated": Kind(_truncated, "whole|complete|truncat|end|byte|short|gzip|empty"),
    "flipped bit of the file": Kind(_flipped_file, "", amounts=ALL_BITS),
    "flipped bit of the header": Kind(_flipped_header, "", amounts=ALL_BITS),
    "flipped bit of the voxels": Kind(_flipped_voxels, "", amounts=ALL_BITS),
    "longer axis": Kind(_with_header(_longer), MISFIT, amounts=(1, 7, 100, 5000, 32000)),
    "shorter axis": Kind(_with_header(_longer), MISFIT, amounts=(-1, -2, -9)),
    "negative axis": Kind(_with_header(_longer), MISFIT, amounts=(-47, -1000)),
    "datatype": Kind(
        _with_header(_datatype, padding=200_000),
        "type|RGB|complex|float128|single values|component|binary",
        amounts=(0, 1, 32, 128, 1792, 2304, 9999),
    ),
    "vox_offset": Kind(_with_header(_offset), "offset|byte|whole|complete|header", amounts=(-100, 1e9, 3, 100_000)),
    "sheared": Kind(_with_header(_sheared), "shear|orthonormal", amounts=(0.05, 0.2, 0.5)),
    "unit": Kind(_with_header(_unit), "unit|spacing|mm", amounts=(UNIT_CODES["meter"], UNIT_CODES["micron"])),
    "dimensions": Kind(_with_header(_dimensions, padding=2_000_000), "dimension|volume|[234]-?D", amounts=(1, 2, 5)),
    "not a number": Kind(_with_voxels("f4", _put), NO_NUMBER, IMAGES, (np.nan, np.inf, -np.inf)),
    "label that is no number": Kind(_with_voxels("f4", _put), f"{NO_NUMBER}|nan|inf", REFERENCE, (np.nan, np.inf)),
    "no-data value": Kind(_with_voxels("f4", _put_no_data), OVERFLOW, IMAGES, (-3.4e38, 1e30)),
    "overflow": Kind(_with_voxels("f8", _put), OVERFLOW, IMAGES, (1e300, -1e39)),
    "constant": Kind(_with_voxels("i2", _constant), "constant|contrast|zero|equal|same", IMAGES, (0, 5, -300)),
    "other label": Kind(_wrong_label, "label", REFERENCE, (0, 5, 7, 200, -1, 0.5, 2.9, 1e9)),
    "noisy labels": Kind(_noisy, "label", REFERENCE, (2e-3, 1e-2, 0.3)),
    "moved": Kind(_moved, "origin|affine|position|grid", ANY, (0.05, -0.5, 40)),
    "other packing": Kind(_other_packing, "gzip|rename|compress"),
    "web page": Kind(_web_page, "NIfTI|gzip|header|image|byte|web page", ANY, (0, 1)),
    # these two are made of no bytes
    "folder": Kind(_web_page, "folder"),
    "missing": Kind(_web_page, "no such file|missing|no file|lacks|no "),
}
