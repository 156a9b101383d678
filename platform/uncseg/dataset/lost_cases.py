"""What looks like a case and gives none: an empty folder, an archive, files of other endings, a case inside another."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from uncseg.dataset.cases import FileNames, is_image, stem_of
from uncseg.errors import Problem, listed

_ARCHIVE = re.compile(r"(.+?)\.(zip|7z|rar|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))", re.IGNORECASE)
_BESIDE = re.compile(
    r".*\.(json|txt|csv|tsv|xlsx?|docx?|pptx?|md|xml|html?|pdf|log|ya?ml|mat|md5|sh|sha\w+|py|ipynb|m|r|bvals?|bvecs?|png|jpe?g"
    r"|gif|svg|vtk|stl|np[yz]|pkl)",
    re.IGNORECASE,
)
"""What people and tools write beside images."""


def case_of(name: str, names: FileNames) -> str | None:
    """Return the case that the name of an image or an archive tells by its ending; None if it tells none."""
    if match := _ARCHIVE.fullmatch(name):
        return match[1]
    split = names.split(stem_of(name) or "")
    return split[0] if split else None


def named_as_images(files: Collection[str], names: FileNames) -> list[str]:
    """Return the names that end in a modality, but for an ending that images do not have: CASE-t1n.nii.gz.part."""
    suffixes = "|".join(map(re.escape, names.by_ending))  # the longest first
    by_role = re.compile(rf".+({suffixes})(?![a-z0-9_-]).*", re.IGNORECASE)
    return [
        name
        for name in files
        if by_role.fullmatch(name)
        and not (name.startswith(".") or is_image(name) or _BESIDE.fullmatch(name) or _ARCHIVE.fullmatch(name))
    ]


def other_case_in(case_id: str, files: Collection[str], names: FileNames) -> str | None:
    """Return another case that files in the folder of ``case_id`` make up by its name or nnU-Net's, or None."""
    found: dict[str, set[str]] = defaultdict(set)
    modalities = names.task.modalities
    for name in files:
        stem = stem_of(name) or name
        if split := names.split(stem):
            found[split[0]].add(split[1].role)
        elif (match := re.fullmatch(r"(.+)_(\d{4})", stem)) and int(match[2]) < len(modalities):
            found[match[1]].add(modalities[int(match[2])])
    complete = (case for case, roles in found.items() if roles.issuperset(modalities))
    return next((case for case in complete if case.lower() != case_id.lower()), None)


def lost_cases(folders: Mapping[Path, Sequence[str]], cases: Collection[str], names: FileNames) -> list[Problem]:
    """Return a problem per folder without an image, and per archive, that looks like a case.

    Args:
        folders: all folders, with the names of their files.
        cases: names of the cases that were found; a name of which only the numbers differ is like theirs.
        names: of the task's files.
    """
    shapes = {_shape(case) for case in cases}
    above = {folder.parent for folder in folders}
    problems = []
    for folder, files in folders.items():
        if any(is_image(name) for name in files):
            alike = []
        elif alike := named_as_images(files, names):
            problems.append(_other_endings(folder, alike))
        elif folder not in above and folder.name not in cases and _shape(folder.name) in shapes:
            found = f"no image; there is {listed(files) or 'nothing'}"
            advice = "unpack or download the case again, remove the folder, or exclude it"
            problems.append(Problem(str(folder), found, "the files of a case", advice))
        for name in files:
            archive = _ARCHIVE.fullmatch(name)
            if archive and archive[1] not in cases and _shape(archive[1]) in shapes:
                advice = "unpack it, move it away, or exclude it"
                problems.append(Problem(str(folder / name), "an archive", "an unpacked case", advice))
    return problems


def _other_endings(folder: Path, names: Sequence[str]) -> Problem:
    found = f"{len(names)} file{'s' * (len(names) != 1)} named as a case's, with another ending: {listed(names)}"
    advice = "complete the download, or rename them to what they are, or exclude them"
    return Problem(str(folder), found, "images that end in .nii.gz or .nii", advice)


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name.lower())
