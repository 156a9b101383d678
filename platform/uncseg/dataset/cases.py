"""The cases of a dataset and the names of their files, as the conventions of a task say.

A file of a case has its name, the ending of a modality or of the reference, and .nii.gz or .nii. Upper and lower case
make no difference.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from uncseg.errors import Problem
from uncseg.files import file_digest
from uncseg.layout import maps_beside_segmentation
from uncseg.tasks.fields import MASK, ORACLE, ConventionName
from uncseg.tasks.task import Task

ENDINGS = (".nii.gz", ".nii")
OTHER_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr", ".img", ".hdr", ".dcm", ".mgz", ".nii.zip", ".nii.bz2", ".nii.xz")

MOST_BYTES = 200
"""Longest name of a case: files of 255 bytes hold it, the name of a map and what marks a partial file."""


@dataclass(frozen=True)
class Case:
    """One scan.

    Args:
        case_id: its name.
        patient: scans of one patient share it.
        images: one file per modality, in the order of the task; of a case to predict, one per channel of the model.
        reference: segmentation, or None.
        convention: of its folder: what the values of the reference mean.
    """

    case_id: str
    patient: str
    images: tuple[Path, ...]
    reference: Path | None
    convention: ConventionName

    @property
    def files(self) -> tuple[Path, ...]:
        """The images, and the reference if there is one."""
        return self.images if self.reference is None else (*self.images, self.reference)


@dataclass(frozen=True)
class FileRole:
    """What a file of a case is: a modality or ``seg``, and the conventions that name it so."""

    role: str
    conventions: tuple[ConventionName, ...]


@dataclass(frozen=True)
class FileNames:
    """How files of a task's cases are named.

    Args:
        task: whose conventions hold.
        by_ending: what each ending says, in lower case, the longest first.
    """

    task: Task
    by_ending: Mapping[str, FileRole]

    @classmethod
    def of(cls, task: Task) -> "FileNames":
        """Return the names of a task."""
        found: dict[str, FileRole] = {}
        for name, convention in task.conventions.items():
            for role, ending in (*convention.images.items(), (MASK, convention.mask)):
                earlier = found[ending.lower()].conventions if ending.lower() in found else ()
                found[ending.lower()] = FileRole(role, (*earlier, name))
        return cls(task, dict(sorted(found.items(), key=lambda item: -len(item[0]))))

    @property
    def roles(self) -> tuple[str, ...]:
        """The modalities and ``seg``."""
        return (*self.task.modalities, MASK)

    def in_case(self, case_id: str, file_name: str) -> FileRole | None:
        """Return what a file in the folder of a case is; None for a file that has no role."""
        stem = stem_of(file_name)
        if stem is None or not stem.lower().startswith(case_id.lower()):
            return None
        return self.by_ending.get(stem[len(case_id) :].lower())

    def split(self, stem: str) -> tuple[str, FileRole] | None:
        """Return case and role of a file's name without .nii.gz; None if it does not end in a role."""
        for ending, role in self.by_ending.items():
            if stem.lower().endswith(ending) and len(stem) > len(ending):
                return stem[: -len(ending)], role
        return None

    def file_name(self, case_id: str, role: str, convention: ConventionName) -> str:
        """Return the name of a case's file in a convention."""
        named = self.task.conventions[convention]
        return f"{case_id}{named.mask if role == MASK else named.images[role]}.nii.gz"


def stem_of(name: str) -> str | None:
    """Return a file's name without the ending that says NIfTI; None for other names."""
    known = next((ending for ending in ENDINGS if name.lower().endswith(ending)), None)
    return None if known is None or name.startswith(".") else name[: -len(known)]


def is_image(name: str) -> bool:
    """Return whether a name is that of an image, of NIfTI or another format."""
    # a name that begins with a point is hidden: ._CASE-t1n.nii.gz holds what macOS stores beside a file
    return stem_of(name) is not None or (name.lower().endswith(OTHER_ENDINGS) and not name.startswith("."))


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


def names_of_maps(case_ids: Collection[str], task: Task) -> dict[str, Problem]:
    """Return a problem for each case whose prediction would have the name of another case's map."""
    names = set(case_ids)
    maps = {f"{case}_{name}": case for case in names for name in maps_beside_segmentation(task)}
    advice = "rename one of the two"
    return {
        case: Problem(case, f"the name of a map of {maps[case]}, which would overwrite it", "another name", advice)
        for case in sorted(names.intersection(maps))
    }


def is_oracle(case_id: str, name: str) -> bool:
    """Return whether a file holds a phantom's true probabilities."""
    return any(name == f"{case_id}{ORACLE}{ending}" for ending in ENDINGS)


def digest_of_files(case: Case) -> str:
    """Return the SHA-256 (hex) of the content of a case's images and reference."""
    whole = hashlib.sha256()
    for file in case.files:
        whole.update(bytes.fromhex(file_digest(file)))
    return whole.hexdigest()


def oracle_path(case: Case) -> Path | None:
    """Return the file of a phantom's q, the probability that a rater gives a voxel to the main region; else None."""
    file = case.images[0].parent / f"{case.case_id}{ORACLE}.nii.gz"
    return file if file.is_file() else None
