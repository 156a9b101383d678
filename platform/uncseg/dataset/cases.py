"""BraTS cases and the names of their files.

The naming of 2023 (CASE-t1n.nii.gz, …, CASE-seg.nii.gz) and that of 2018 to 2021 (CASE_t1.nii.gz, CASE_t1ce, …) are
known. Upper and lower case make no difference.
"""

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from uncseg.dataset.labels import Convention
from uncseg.errors import Problem
from uncseg.layout import CASE_MAPS, PREDICTION_MAPS

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
ENDINGS = (".nii.gz", ".nii")
OTHER_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".dcm", ".mgz", ".nii.zip", ".nii.bz2", ".nii.xz")

MOST_BYTES = 200
"""Longest name of a case: files of 255 bytes hold it, the name of a map and what marks a partial file."""
ROLES = (*MODALITIES, "seg")
ORACLE = "-q"
"""Ending of a phantom's true probabilities, which lie beside its images."""
FILE_ROLES: dict[str, tuple[str, Convention]] = {
    **{f"-{role}": (role, "2023") for role in ROLES},
    **{f"_{name}": (role, "2018") for name, role in zip(("t1", "t1ce", "t2", "flair", "seg"), ROLES, strict=True)},
}


@dataclass(frozen=True)
class Case:
    """One scan.

    Args:
        case_id: name of its folder.
        patient: scans of one patient share it.
        images: four files in the order of :data:`MODALITIES`; of a case to predict, one per channel of the model.
        reference: segmentation, or None.
        convention: what the labels of its folder mean.
    """

    case_id: str
    patient: str
    images: tuple[Path, ...]
    reference: Path | None
    convention: Convention

    @property
    def files(self) -> tuple[Path, ...]:
        """The images, and the reference if there is one."""
        return self.images if self.reference is None else (*self.images, self.reference)


def ending_of(name: str) -> str | None:
    """Return the part of a file's name that says NIfTI, as it is written; None for other names."""
    known = next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)
    return None if known is None or name.startswith(".") else name[-len(known) :]


def is_image(name: str) -> bool:
    """Return whether a name is that of an image, of NIfTI or another format."""
    # a name that begins with a point is hidden: ._CASE-t1n.nii.gz holds what macOS stores beside a file
    return ending_of(name) is not None or (name.lower().endswith(OTHER_ENDINGS) and not name.startswith("."))


def role_in_case(case_id: str, file_name: str) -> tuple[str, Convention] | None:
    """Return role and convention of a file in the folder of a case; None for a file that has none."""
    ending = ending_of(file_name)
    if ending is None or not file_name.lower().startswith(case_id.lower()):
        return None
    return FILE_ROLES.get(file_name[len(case_id) : -len(ending)].lower())


def role_of(stem: str) -> tuple[str, str, Convention] | None:
    """Return case, role and convention of a file's name without its ending; None if it does not end in a role."""
    for suffix, (role, convention) in FILE_ROLES.items():
        if stem.lower().endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)], role, convention
    return None


def name_problems(case_id: str) -> list[Problem]:
    """Return the problem of a name that tables or files cannot hold.

    It has bytes that are not UTF-8, control characters, or more than :data:`MOST_BYTES`.
    """
    expected, advice = "a name of printable characters", "rename the folder and its files"
    if any(unicodedata.category(character) in ("Cs", "Cc") for character in case_id):
        found = "a name with bytes that are not UTF-8 or with control characters"
        return [Problem(ascii(case_id), found, expected, advice)]
    if (length := len(case_id.encode())) > MOST_BYTES:
        return [Problem(case_id, f"a name of {length} bytes", f"at most {MOST_BYTES}", advice)]
    return []


def names_of_maps(case_ids: Collection[str]) -> dict[str, Problem]:
    """Return a problem for each case whose prediction would have the name of another case's map."""
    names = set(case_ids)
    maps = {f"{case}_{name}": case for case in names for name in (*CASE_MAPS, *PREDICTION_MAPS)}
    advice = "rename one of the two"
    return {
        case: Problem(case, f"the name of a map of {maps[case]}, which would overwrite it", "another name", advice)
        for case in sorted(names.intersection(maps))
    }


def is_oracle(case_id: str, name: str) -> bool:
    """Return whether a file holds a phantom's true probabilities."""
    return any(name == f"{case_id}{ORACLE}{ending}" for ending in ENDINGS)


def oracle_path(case: Case) -> Path | None:
    """Return the file of a phantom's q, the probability per voxel that a rater calls it tumour; None for real cases."""
    file = case.images[0].parent / f"{case.case_id}{ORACLE}.nii.gz"
    return file if file.is_file() else None
