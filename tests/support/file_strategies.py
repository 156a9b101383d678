"""What hypothesis draws: variants of a small case's files, harmless ones and damaged ones."""

import math
from collections.abc import Sequence

from hypothesis import strategies as st

from support.file_damage import KINDS
from support.file_variants import DATATYPES, ROLES, CaseVariant, Damage, FileVariant, Forms, Space, is_scale

LABEL_SCALES = (1, 2, 25, 42, 60, 85)
"""1/slope of a mask that a tool stretched over the range of its type."""
IMAGE_SLOPES = (1.0, 0.0, 2.0, 0.37, 1 / 3, 1e-3, 1e-6, 4000.0, -1.0, -0.02, math.nan)
LARGEST = {"u1": 255, "i1": 127}
SPACINGS = (1.0, 1.0, 0.93, 0.72, 1.2, 2.0, 2.8)
"""No number of voxels in a case gives half a voxel of 1 mm with them, where nnU-Net's rounding is anyone's guess."""
HARMLESS_OR_NOT = [name for name, kind in KINDS.items() if not kind.cause]
"""Damages that may be accepted, such as a flipped bit."""
DAMAGED = [
    CaseVariant(damage=Damage(name, role, amount, 0.6))
    for name, kind in KINDS.items()
    for role in dict.fromkeys((kind.roles[0], kind.roles[-1]))
    for amount in kind.amounts
]
"""Every damage once, in files that are plain but for it."""
# header fields that say nothing about geometry, type or scale
EXTRA = {
    "descrip": st.sampled_from([b"FSL5.0", b"", b"\xff" * 80]),
    "cal_max": st.sampled_from([0.0, 255.0, -1.0]),
    "intent_code": st.sampled_from([0, 3, 1002, 1004, 1005, 1006, 1007, 2005]),
    "intent_name": st.sampled_from([b"", b"label"]),
    "aux_file": st.sampled_from([b"", b"none"]),
    "slice_code": st.sampled_from([0, 1]),
    "toffset": st.sampled_from([0.0, 3.5]),
}

EXAMPLES = {
    "plain": CaseVariant(),
    "no form": CaseVariant(forms=Forms(0, 0)),
    "forms that differ": CaseVariant(forms=Forms(2, 1, "moved")),
    "sform that is sheared beside a qform": CaseVariant(forms=Forms(2, 1, "sheared")),
    "micrometres": CaseVariant(space=Space(units="micron")),
    "metres": CaseVariant(space=Space(units="meter", spacing=(0.72, 1.2, 2.0))),
    "fourth axis of length 1": CaseVariant().with_files(trailing=1),
    "labels by a scale factor": CaseVariant().with_file("seg", dtype="u1", slope=1 / 85),
    "labels that are nearly whole": CaseVariant().with_file("seg", dtype="f4", noise=9.9e-4),
    "upper-case names": CaseVariant().with_files(ending=".NII.GZ"),
    "NIfTI-2": CaseVariant().with_files(version=2),
    "doubles of the other byte order": CaseVariant().with_files(dtype="f8", order=">"),
    "64-bit integers": CaseVariant(naming="2018").with_files(dtype="i8"),
    "small slope": CaseVariant().with_file("t1c", slope=1e-6).with_file("t2f", slope=-0.02, inter=20.0),
    "intercepts without a slope": CaseVariant()
    .with_file("t1c", slope=0.0, inter=-1024.0)
    .with_file("t2w", dtype="f4", slope=math.nan, inter=3.0),
    "oblique": CaseVariant(space=Space((2, 0, 1), (1, 1, -1), (10.0, -5.0, 20.0), (1.0, 2.8, 0.93))),
    "labels of 2018": CaseVariant(naming="2018").with_files(ending=".nii"),
}
"""Files of public bug reports that have to be accepted."""


@st.composite
def spaces(draw) -> Space:
    """Draw a geometry: an orientation of the axes, a rotation, spacings, an origin, a unit."""
    degrees = st.one_of(st.just(0.0), st.floats(-20, 20, allow_nan=False, width=16))
    return Space(
        axes=tuple(draw(st.permutations(range(3)))),
        flips=tuple(draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))),
        degrees=draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(degrees, degrees, degrees))),
        spacing=draw(st.one_of(st.just((1.0, 1.0, 1.0)), st.tuples(*[st.sampled_from(SPACINGS)] * 3))),
        origin=draw(st.one_of(st.just((0.0, 239.0, 0.0)), st.tuples(*[st.floats(-500, 500, width=16)] * 3))),
        units=draw(st.sampled_from(["mm", "mm", "unknown", "micron", "meter"])),
    )


@st.composite
def forms(draw) -> Forms:
    """Draw which of the two forms are there, with which codes, and whether they say the same."""
    codes = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return Forms(*codes, draw(st.sampled_from(["", "", "moved", "turned", "zoomed", "sheared"])) if all(codes) else "")


@st.composite
def files(draw, role: str, naming: str, own_codes: bool) -> FileVariant:
    """Draw how a file is stored. With ``own_codes`` its form codes may differ from those of the case's other files."""
    dtype = draw(st.sampled_from(sorted(DATATYPES)))
    ending = draw(st.sampled_from([".nii.gz", ".nii.gz", ".nii", ".NII.GZ", ".Nii", ".nii.GZ"]))
    code = st.integers(1, 4)
    slope, inter = draw(label_scales(dtype, int(naming == "2018") + 3) if role == "seg" else image_scales())
    noise = (0.0, 1e-6, 5e-4) if role == "seg" else (0.0, 0.4)
    return FileVariant(
        dtype=dtype,
        order=draw(st.sampled_from("<>")),
        slope=slope,
        inter=inter,
        noise=draw(st.sampled_from(noise)) if dtype[0] == "f" else 0.0,
        codes=draw(st.one_of(st.none(), st.tuples(code, code))) if own_codes else None,
        version=draw(st.sampled_from([1, 1, 1, 2])),
        trailing=draw(st.sampled_from([0, 0, 0, 1, 2, 4])),
        extra=tuple(draw(st.fixed_dictionaries({}, optional=EXTRA)).items()),
        extension=draw(st.sampled_from([0, 0, 16, 160])),
        ending=ending,
        level=draw(st.sampled_from([6, 0, 1, 9])),
        members=draw(st.sampled_from([1, 1, 2, 7])),
        shift=draw(st.sampled_from([(0.0, 0.0, 0.0), (3e-4, 0.0, -3e-4)])),
        stretch=draw(st.sampled_from([0.0, 0.0, 2e-5])),
    )


@st.composite
def label_scales(draw, dtype: str, largest: int) -> tuple[float, float]:
    """Draw a slope and an intercept with which the type can hold the labels from 0 to the largest."""
    pairs = [(n, shift) for n in LABEL_SCALES for shift in (0, 5) if largest * n + shift <= LARGEST.get(dtype, 1000)]
    stretched, shift = draw(st.sampled_from(pairs))
    if (stretched, shift) == (1, 0):
        return draw(st.sampled_from([1.0, 0.0])), 0.0
    return 1 / stretched, -shift / stretched


@st.composite
def image_scales(draw) -> tuple[float, float]:
    """Draw a slope and an intercept."""
    slope = draw(st.sampled_from(IMAGE_SLOPES))
    return slope, (slope if is_scale(slope) else 1.0) * draw(st.sampled_from([0.0, 0.0, 0.0, 12.5, -1024.0]))


@st.composite
def harmless(draw) -> CaseVariant:
    """Draw a case that has to be accepted."""
    chosen = draw(forms())
    own_codes = not chosen.other and bool(chosen.sform or chosen.qform)
    naming = draw(st.sampled_from(["2023", "2018"]))
    stored = {role: draw(files(role, naming, own_codes)) for role in ROLES}
    return CaseVariant(naming, draw(spaces()), chosen, stored)


@st.composite
def damaged_cases(draw, kinds: Sequence[str] = sorted(KINDS)) -> CaseVariant:
    """Draw a case with one damaged file."""
    variant = draw(harmless())
    name = draw(st.sampled_from(kinds))
    kind = KINDS[name]
    damage = Damage(
        name, draw(st.sampled_from(kind.roles)), draw(st.sampled_from(kind.amounts)), draw(st.integers(0, 1000)) / 1000
    )
    return CaseVariant(variant.naming, variant.space, variant.forms, variant.files, damage)


@st.composite
def near_the_tolerance(draw) -> CaseVariant:
    """Draw a case of which one file's position, voxel size or direction differs by about the tolerance, 1e-3."""
    variant = draw(harmless())
    amount = draw(st.sampled_from([0.5e-3, 0.9e-3, 0.99e-3, 0.9999e-3, 1e-3, 1.0001e-3, 1.01e-3, 1.1e-3, 2e-3, 2.1e-3]))
    sign = draw(st.sampled_from([-1, 1]))
    changes = {
        "shift": tuple(draw(st.permutations([sign * amount, 0.0, 0.0]))),
        "stretch": sign * amount,
        "tilt": sign * amount * 57.29578,
    }
    what = draw(st.sampled_from(sorted(changes)))
    return variant.with_file(draw(st.sampled_from(ROLES)), **{what: changes[what]})
