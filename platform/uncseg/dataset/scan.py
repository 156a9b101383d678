"""Finding the cases of a folder. Whatever looks like an image and belongs to no case is a problem."""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from uncseg.dataset.cases import (
    FILE_ROLES,
    MODALITIES,
    ROLES,
    Case,
    ending_of,
    is_image,
    is_oracle,
    name_problems,
    names_of_maps,
    role_in_case,
    role_of,
)
from uncseg.dataset.labels import AS_NAMED, AS_SET, CONVENTION_NAMES, Convention
from uncseg.dataset.lost_cases import case_of, lost_cases, named_as_images, other_case_in
from uncseg.dataset.patients import patient_of
from uncseg.errors import Problem, ProblemsFound, listed

References = Literal["required", "optional", "ignored"]


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Args:
        cases: the complete ones, sorted by id.
        problems: incomplete cases, and whatever looks like an image and belongs to no case.
        partial: what there is of the cases that are incomplete, or cannot be used beside others.
        excluded: names that were to be left out, and are there.
        convention: of the folder's labels.
        convention_reason: how it is known.
        unused: image files in the cases' folders that are not read.
    """

    cases: list[Case] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    partial: list[Case] = field(default_factory=list)
    excluded: set[str] = field(default_factory=set)
    convention: Convention = "2023"
    convention_reason: str = "by default"
    unused: list[Path] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """A sentence on the image files that are not read, if there are any."""
        if not self.unused:
            return []
        count, names = len(self.unused), listed(file.name for file in self.unused)
        return [f"{count} other image file{'s' * (count != 1)} in the cases' folders: not used ({names})"]


@dataclass(frozen=True)
class _Place:
    """A folder with image files of a case, and the names of all files in it."""

    folder: Path
    names: list[str]

    @property
    def images(self) -> list[str]:
        """The names of its image files."""
        return [name for name in self.names if is_image(name)]

    @property
    def roles(self) -> dict[str, tuple[str, Convention]]:
        """Role and convention of each file that has them."""
        found = {name: role_in_case(self.folder.name, name) for name in self.images}
        return {name: role for name, role in found.items() if role is not None}


def scan_folder(
    folder: Path,
    references: References = "required",
    convention: Convention | None = None,
    exclude: Collection[str] = (),
    skip: Path | None = None,
    taken: Collection[Path] = (),
) -> Scan:
    """Find the cases of a folder: folders with image files, directly in it or deeper (HGG/CASE, LGG/CASE).

    Args:
        folder: where to look. A folder that several links lead to is visited once.
        references: whether a case without one is incomplete, or references are not looked at.
        convention: what the labels mean; None: as the names of the files say.
        exclude: names of cases, folders or files to leave out.
        skip: a folder below that is not visited.
        taken: files that are used in another way.

    Raises:
        ProblemsFound: there is no such folder (exit code 2), or nothing in it that is a case, excluded or taken (1).
    """
    require_folder(folder)
    scan = Scan()
    by_name: dict[str, list[_Place]] = defaultdict(list)
    seen: list[str] = []
    folders: dict[Path, list[str]] = {}
    for parent, everything in walk_folders(folder, scan.problems, skip):
        left_out = _left_out(folder.resolve(), parent, everything, exclude)
        scan.excluded.update(left_out.values())
        if parent.name in left_out:
            continue
        names = [name for name in everything if name not in left_out and parent / name not in taken]
        folders[parent], images = names, [name for name in names if is_image(name)]
        seen += images
        if any(role_in_case(parent.name, name) for name in images):
            by_name[parent.name].append(_Place(parent, names))
        elif images:
            scan.problems.append(_stray_images(parent, images))
    scan.problems.extend(lost_cases(folders, by_name))
    if not (by_name or scan.excluded or taken):
        raise _no_case(folder, seen, scan.problems)
    found = _same_convention(folder, by_name, references, convention, scan.problems)
    cases = [_case(name, places, folder, references, found[0], scan) for name, places in sorted(by_name.items())]
    usable = [case for case in cases if case is not None]
    overwritten = names_of_maps([case.case_id for case in usable])
    scan.problems.extend(overwritten.values())
    scan.partial.extend(case for case in usable if case.case_id in overwritten)
    complete = [case for case in usable if case.case_id not in overwritten]
    return Scan(complete, scan.problems, scan.partial, scan.excluded, *found, scan.unused)


def _left_out(root: Path, folder: Path, names: Sequence[str], exclude: Collection[str]) -> dict[str, str]:
    """Return the names that are to be left out, of a folder or of its files, each with the name that says so."""
    is_case = any(role_in_case(root.name, name) for name in names)
    parts = folder.relative_to(root).parts or ((root.name,) if is_case else ())
    if wanted := next((part for part in parts if part in exclude), None):
        return {folder.name: wanted}
    found = {name: name if name in exclude else case_of(name) for name in names}
    return {name: said for name, said in found.items() if said is not None and said in exclude}


def require_folder(folder: Path) -> None:
    """Refuse a dataset that is no folder.

    Raises:
        ProblemsFound: with exit code 2.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        advice = "correct the path, or make phantoms: uncseg phantom"
        problem = Problem(str(folder), found, "a folder with one folder per case", advice)
        raise ProblemsFound(f"The dataset {folder} cannot be used.", [problem])


def walk_folders(root: Path, problems: list[Problem], skip: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder once with the names in it, in order; folders behind links come after all others."""
    unvisited = [root.resolve()]
    links: list[Path] = []
    visited: set[tuple[int, int]] = set()
    while unvisited or links:
        folder = unvisited.pop() if unvisited else links.pop(0)
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            advice = "correct the permissions or the link, or move it away"
            problems.append(Problem(str(folder), str(error.strerror), "a folder that can be read", advice))
            continue
        if (status.st_dev, status.st_ino) in visited or (skip is not None and folder == skip.resolve()):
            continue
        visited.add((status.st_dev, status.st_ino))
        names: list[str] = []
        below: list[Path] = []
        for entry in entries:
            # a folder with the name of an image stands where the image should be
            if ending_of(entry.name) is not None or not _is_folder(entry):
                names.append(entry.name)
            elif not entry.name.startswith((".", "__MACOSX")):
                (links if entry.is_symlink() else below).append(Path(entry.path))
        unvisited += reversed(below)
        yield folder, names


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _stray_images(folder: Path, images: Sequence[str]) -> Problem:
    what = f"{len(images)} image file{'s' * (len(images) != 1)}, none named {folder.name}-…: {listed(images)}"
    expected = "one folder per case, named as its files begin: CASE/CASE-t1n.nii.gz"
    stems = [name[: -len(ending)] for name in images if (ending := ending_of(name))]
    cases = sorted({role[0] for stem in stems if (role := role_of(stem))})
    if stems and all(re.fullmatch(r".+_\d{4}", stem) for stem in stems):
        advice = "these are nnU-Net's files: predict takes this very folder; for all else name them as BraTS does"
    elif not stems:
        advice = "convert them to NIfTI, or move them away"
    elif len(cases) == 1:
        advice = f"rename the folder to {cases[0]}, or the files"
    elif cases:
        advice = f"move each case's files into a folder of its own, for example {cases[0]}"
    else:
        advice = "rename the folder or the files, move them away, or exclude them"
    return Problem(str(folder), what, expected, advice)


def _no_case(folder: Path, seen: Sequence[str], problems: list[Problem]) -> ProblemsFound:
    saw = list(seen)
    if not saw:
        with contextlib.suppress(OSError):  # that it cannot be read is among the problems
            saw = sorted(path.name for path in folder.iterdir())
    expected = "one folder per case, for example BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz"
    advice = "give the folder that holds the cases' folders" + (", or see below" if problems else "")
    problem = Problem(str(folder), f"no case; there is {listed(saw) or 'nothing'}", expected, advice)
    return ProblemsFound(f"The dataset {folder} cannot be used.", [problem, *problems], exit_code=1)


def _same_convention(
    folder: Path,
    by_name: Mapping[str, Sequence[_Place]],
    references: References,
    wanted: Convention | None,
    problems: list[Problem],
) -> tuple[Convention, str]:
    """Return the convention of a folder's labels and how it is known; names of both conventions are a problem."""
    if wanted is not None:
        return wanted, AS_SET
    examples: dict[Convention, list[str]] = {"2023": [], "2018": []}
    for places in by_name.values():
        for place in places:
            for convention in {role[1] for role in place.roles.values()}:
                examples[convention].append(next(n for n, role in place.roles.items() if role[1] == convention))
    if examples["2023"] and examples["2018"] and references != "ignored":
        found = " and ".join(
            f"names of {CONVENTION_NAMES[convention]} in {len(names)} case{'s' * (len(names) != 1)} ({names[0]})"
            for convention, names in examples.items()
        )
        expected = "one convention per folder, because label 4 has a meaning in one of them only"
        advice = "keep them in two folders, or say which labels all of them have: dataset.convention or --convention"
        problems.append(Problem(str(folder), found, expected, advice))
    return "2018" if examples["2018"] and not examples["2023"] else "2023", AS_NAMED


def _case(
    name: str, places: Sequence[_Place], folder: Path, references: References, convention: Convention, scan: Scan
) -> Case | None:
    """Return a complete case, or None; its problems and unused files go to ``scan``."""
    problems = name_problems(name)
    roles: dict[str, list[Path]] = defaultdict(list)
    place = places[0]
    for file, (role, _) in place.roles.items():
        roles[role].append(place.folder / file)
    others = [place.folder / file for file in place.images if file not in place.roles and not is_oracle(name, file)]
    if len(places) > 1:
        where = ", ".join(os.path.relpath(place.folder, folder.resolve()) for place in places)
        found = f"{len(places)} cases of this name: {where}"
        problems.append(Problem(name, found, "one", "rename or remove the others"))
    if other := other_case_in(name, [file.name for file in others]):
        found = f"the files of another case as well, {other}"
        problems.append(
            Problem(str(place.folder), found, "one folder per case", "move them into a folder of their own")
        )
    needed = ROLES if references == "required" else MODALITIES
    near = [file.name for file in others] + named_as_images(place.names)
    beside = f"; beside it: {listed(near)}" if near else ""
    for what in needed:
        if not roles[what]:
            file_name = _usual_name(name, what, {found[1] for found in place.roles.values()})
            expected = "all of " + ", ".join(needed)
            problems.append(Problem(f"{name}/{file_name}", f"no such file{beside}", expected, "add it or exclude it"))
    for what, files in roles.items():
        if len(files) > 1:
            found = " and ".join(file.name for file in files)
            problems.append(Problem(f"{name} ({what})", found, "one file", "remove the others"))
    scan.problems.extend(problems)
    images = tuple(roles[modality][0] for modality in MODALITIES if roles[modality])
    reference = None if references == "ignored" else next(iter(roles["seg"]), None)
    case = Case(name, patient_of(name), images, reference, convention)
    if problems:
        scan.partial.append(case)
        return None
    scan.unused.extend(others)
    return case


def _usual_name(case_id: str, role: str, conventions: set[Convention]) -> str:
    """Return the name of a missing file, in the convention of the case's other files."""
    convention = "2018" if conventions == {"2018"} else "2023"
    suffix = next(suffix for suffix, found in FILE_ROLES.items() if found == (role, convention))
    return f"{case_id}{suffix}.nii.gz"
