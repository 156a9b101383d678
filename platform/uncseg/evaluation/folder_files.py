"""The files of a folder that are to be scored, by case: masks, images whose voxels tell the brain, and maps."""

import os
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uncseg.dataset.cases import FileNames, FileRole, is_image, stem_of
from uncseg.dataset.folders import walk_folders
from uncseg.errors import Problem
from uncseg.layout import UNCERTAINTY, maps_beside_segmentation
from uncseg.tasks.built_in_tasks import is_built_in, tasks_by_names
from uncseg.tasks.fields import MASK, ConventionName
from uncseg.tasks.task import Task

_Roles = Mapping[str, tuple[str, FileRole]]
"""Case and role of files, by their names."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of one role in a folder.

    Args:
        files: by case.
        examples: a file's name for each convention that names of the folder tell.
        left: names of other files beside a case's.
    """

    files: dict[str, Path]
    examples: dict[ConventionName, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def files_by_case(folder: Path, role: str, names: FileNames, problems: list[Problem]) -> FolderFiles:
    """Return files by case; of those with endings of the task only the ones of a role.

    A case has the name of its folder, as in :func:`~uncseg.dataset.scan.scan_folder`, and no other file there is one's;
    elsewhere it has the name that its files begin with.

    Args:
        folder: with subfolders.
        role: ``seg``, or a modality.
        names: of the files of the task.
        problems: gets images of other formats, and cases with several files.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    examples: dict[ConventionName, str] = {}
    left: list[str] = []
    for parent, entries in walk_folders(folder, problems):
        stems = {name: stem for name in entries if (stem := stem_of(name))}
        in_case = {name: (parent.name, part) for name in stems if (part := names.in_case(parent.name, name))}
        roles: _Roles = in_case or _roles(stems, role, names)
        for name, (case, part) in roles.items():
            for convention in _told(case, part, names.task):
                examples.setdefault(convention, name)
            if part.role == role:
                found[case].append(parent / name)
        others = _beside(stems, roles, parent.name if in_case else None)
        left += others
        for name, stem in stems.items():
            if name not in roles and name not in others:
                found[stem].append(parent / name)
        problems += [
            Problem(str(parent / name), "an image of another format", "NIfTI, .nii.gz or .nii", "convert it to NIfTI")
            for name in entries
            if is_image(name) and name not in stems
        ]
    problems += _several(folder, found)
    maps = {name for name in found if _is_map(name, found, names.task)}
    left += [file.name for name in maps for file in found[name]]
    files = {name: files[0] for name, files in found.items() if len(files) == 1 and name not in maps}
    return FolderFiles(files, examples, sorted(left))


def _roles(stems: Mapping[str, str], wanted: str, names: FileNames) -> _Roles:
    """Return what files are by their names, in a folder that is no case's.

    patient_t1.nii.gz is an image only beside patient_seg.nii.gz. Otherwise it may be the mask of a first point in time.
    """
    roles = {name: parts for name, stem in stems.items() if (parts := names.split(stem))}
    with_mask = {case for case, part in roles.values() if part.role == MASK}
    return {name: parts for name, parts in roles.items() if parts[1].role in (MASK, wanted) or parts[0] in with_mask}


def _told(case: str, part: FileRole, task: Task) -> Iterable[ConventionName]:
    """Return the convention that a file's name tells, if it tells one.

    CASE_seg, the reference's ending in an earlier convention of a built-in task, is common, and tells it only where the
    case's name tells a task with this convention. In a task of one's own, each ending tells its convention.
    """
    usual = next((name for name in task.conventions if name in part.conventions), None)
    if usual is None or usual == task.convention or part.role != MASK or not is_built_in(task):
        return [] if usual is None else [usual]
    told = tasks_by_names([case]).get(case, ())
    return [usual] if any(usual in other.conventions for other in told) else []


def _beside(stems: Mapping[str, str], roles: _Roles, folder_of_case: str | None) -> set[str]:
    """Return the files that are neither a case's nor one's own: a CASE-q.nii.gz beside CASE-seg.nii.gz."""
    beginnings = tuple(f"{case}{mark}" for case in {case for case, _ in roles.values()} for mark in "-_")
    others = {name: stem for name, stem in stems.items() if name not in roles}
    return {
        name
        for name, stem in others.items()
        if stem.startswith(beginnings) or (folder_of_case is not None and stem != folder_of_case)
    }


def _several(folder: Path, found: Mapping[str, Collection[Path]]) -> list[Problem]:
    problems = []
    for name, files in found.items():
        if len(files) > 1:
            where = ", ".join(os.path.relpath(file, folder.resolve()) for file in files)
            problems.append(Problem(f"{folder}: {name}", f"{len(files)} files: {where}", "one", "remove the others"))
    return problems


def _is_map(name: str, cases: Container[str], task: Task) -> bool:
    """Return whether a file is one of the maps that lie beside CASE.nii.gz, such as CASE_uncertainty.nii.gz."""
    suffixes = (f"_{suffix}" for suffix in (*maps_beside_segmentation(task), *task.region_keys.values()))
    return any(name.endswith(suffix) and name.removesuffix(suffix) in cases for suffix in suffixes)


@dataclass(frozen=True)
class MapFolder:
    """A folder of maps.

    Args:
        folder: CASE_REGION.nii.gz for some or all regions, or one map for the main region and those within it:
            CASE_uncertainty.nii.gz or CASE.nii.gz.
        files: NIfTI files in it by their names without the ending, in lower case.
        task: whose regions they are.
    """

    folder: Path
    files: Mapping[str, Sequence[Path]]
    task: Task

    @classmethod
    def of(cls, folder: Path, task: Task) -> "MapFolder":
        """List a folder."""
        found: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(folder.iterdir()):
            if stem := stem_of(file.name):
                found[stem.lower()].append(file)
        return cls(folder, found, task)

    def maps_of(self, case: str, masks: Sequence[Path], problems: list[Problem]) -> dict[str, Path]:
        """Return a case's maps by region; its masks, where they lie in the same folder, do not count as maps."""

        def find(suffix: str) -> Path | None:
            files = self.files.get(f"{case}{suffix}".lower(), ())
            files = [file for file in files if file.name.startswith(case)] or files
            # a link to nothing is no other file; whoever reads it says so
            there = [mask for mask in masks if mask.exists()]
            files = [file for file in files if not (file.exists() and any(map(file.samefile, there)))]
            if len(files) > 1:
                names = " and ".join(file.name for file in files)
                problems.append(Problem(f"{case}: uncertainty", names, "one of them", "remove the other"))
            return files[0] if files else None

        keys = self.task.region_keys
        maps = {region: file for region, key in keys.items() if (file := find(f"_{key}")) is not None}
        whole = find(f"_{UNCERTAINTY}") or find("")
        if whole is not None:
            # beside maps of other regions it is that of the main one
            maps = {self.task.main_region: whole, **maps} if maps else dict.fromkeys(self.task.regions_of_map, whole)
        if not maps:
            expected = ", ".join(f"{case}_{key}.nii.gz" for key in keys.values()) + f", or {case}.nii.gz"
            found = f"no map in {self.folder}"
            problems.append(Problem(f"{case}: uncertainty", found, expected, "add it, or exclude the case"))
        return maps


def without_a_region(maps: Mapping[str, Collection[str]], task: Task) -> dict[str, Problem]:
    """Return a problem per case that lacks a map of a region of which others have one.

    Args:
        maps: by case the regions that it has maps of.
        task: whose regions they are.
    """
    regions = [region for region in task.regions if any(region in known for known in maps.values())]
    missing = {case: [region for region in regions if region not in known] for case, known in maps.items()}
    expected = f"maps of {', '.join(regions)}, as other cases have"
    return {
        case: Problem(f"{case}: uncertainty", f"no map of {', '.join(without)}", expected, "add it")
        for case, without in missing.items()
        if without
    }
