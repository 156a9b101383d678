"""What the labels of a reference mean: the conventions of 2023, and of 2018 to 2021.

The meaning of label 4 is never guessed. It is enhancing tumour in the files of 2018 to 2021 and a resection cavity in
those of 2024, so the convention is decided once per folder, by the names of the files or by a setting.
"""

from typing import get_args

import numpy as np

from uncseg.config.sections import Convention
from uncseg.dataset.finite import count_not_finite
from uncseg.dataset.volumes import Volume
from uncseg.errors import Problem, ProblemsFound

LABELS = {"NCR": 1, "ED": 2, "ET": 3}
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
CONVENTION_LABELS: dict[Convention, tuple[int, ...]] = {"2023": (0, 1, 2, 3), "2018": (0, 1, 2, 4)}
CONVENTION_NAMES: dict[Convention, str] = {"2023": "BraTS 2023", "2018": "BraTS 2018 to 2021"}
AS_SET, AS_NAMED = "as set", "by the names of the files"
"""How a convention is known."""
ROUNDING = 1e-3
"""Largest distance from a whole number at which a label is rounded: scale factors make 1.00000002 of 1."""
_SHOWN = 5


def describe_convention(convention: Convention, reason: str) -> str:
    """Return a line that says what the labels of a folder mean, and how that is known."""
    values = zip(CONVENTION_LABELS[convention][1:], LABELS, strict=True)
    meanings = ", ".join(f"{value} {name}" for value, name in values)
    return f"labels of {CONVENTION_NAMES[convention]}: {meanings} ({reason})"


def as_convention(text: str | None, option: str) -> Convention | None:
    """Return the convention that an option names.

    Raises:
        ProblemsFound: it names none.
    """
    if text is None:
        return None
    for convention in get_args(Convention):
        if text == convention:
            return convention
    expected = "2023 (labels 1, 2, 3) or 2018 (labels 1, 2, 4)"
    raise ProblemsFound("The labels cannot be read.", [Problem(option, text, expected, "give one of them")])


def convert_labels(
    volume: Volume, convention: Convention, problems: list[Problem], setting: str = "dataset.convention or --convention"
) -> np.ndarray | None:
    """Return labels 1 NCR, 2 ED, 3 ET, (D, H, W) uint8; or add the problem of others and return None.

    Args:
        volume: labels of the convention, or within :data:`ROUNDING` of them.
        convention: of the folder; under that of 2018, 4 becomes 3.
        problems: gets a problem that names at most five unknown values.
        setting: where a user says that another convention holds.
    """
    voxels = volume.voxels
    if voxels.dtype.kind == "f":
        if wrong := count_not_finite(voxels):
            advice = "repair the mask, or exclude the case"
            problems.append(Problem(str(volume.file), f"{wrong} voxels that are NaN or infinite", "labels", advice))
            return None
        whole = np.rint(voxels)
        voxels = np.where(np.abs(voxels - whole) <= ROUNDING, whole, voxels)
    known = CONVENTION_LABELS[convention]
    if not np.isin(voxels, known).all():
        problems.append(_unknown_labels(volume, voxels, convention, setting))
        return None
    labels = voxels.astype(np.uint8)
    if convention == "2018":
        labels[labels == 4] = 3
    return labels


def _unknown_labels(volume: Volume, voxels: np.ndarray, convention: Convention, setting: str) -> Problem:
    values, counts = np.unique(voxels, return_counts=True)
    strange = [
        (value, count)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if value not in CONVENTION_LABELS[convention]
    ]
    found = ", ".join(f"{value:.9g} ({count} voxels)" for value, count in strange[:_SHOWN])
    found += f" and {len(strange) - _SHOWN} other values" if len(strange) > _SHOWN else ""
    expected = f"only {', '.join(map(str, CONVENTION_LABELS[convention]))} (labels of {CONVENTION_NAMES[convention]})"
    other: Convention = "2018" if convention == "2023" else "2023"
    if len(strange) > _SHOWN:
        advice = "give a mask: this looks like an image"
    elif set(values.tolist()).issubset(CONVENTION_LABELS[other]):
        label, names = CONVENTION_LABELS[other][-1], CONVENTION_NAMES[other]
        advice = f"if {label} is ET, as in {names}, set {setting} to {other}; else map or remove it"
    else:
        advice = "map or remove these labels"
    return Problem(str(volume.file), f"label {found}", expected, advice)
