"""Finding the cases of a folder. Whatever looks like an image and belongs to no case is a problem."""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uncseg.config.task_files import nnunet_dataset_json
from uncseg.dataset.cases import Case, FileNames, FileRole, is_image, is_oracle, name_problems, names_of_maps, stem_of
from uncseg.dataset.folders import References, Scan, require_folder, walk_folders
from uncseg.dataset.labels import AS_NAMED, AS_SET, TASK_SETTING, ConventionName, title_of
from uncseg.dataset.lost_cases import case_of, lost_cases, named_as_images, other_case_in
from uncseg.dataset.nnunet_folder import scan_nnunet
from uncseg.dataset.patients import patient_of
from uncseg.dataset.told_task import remarks_on_names
from uncseg.errors import Problem, ProblemsFound, listed
from uncseg.tasks.built_in_tasks import built_in, built_in_names, require_names_fit, tasks_by_names
from uncseg.tasks.fields import MASK
from uncseg.tasks.task import Task


@dataclass(frozen=True)
class _Place:
    """A folder with image files of a case, and the names of all files in it."""

    folder: Path
    files: list[str]
    names: FileNames

    @property
    def images(self) -> list[str]:
        """The names of its image files."""
        return [name for name in self.files if is_image(name)]

    @property
    def roles(self) -> dict[str, FileRole]:
        """What each file is, of those that have a role."""
        found = {name: self.names.in_case(self.folder.name, name) for name in self.images}
        return {name: role for name, role in found.items() if role is not None}


def scan_folder(
    folder: Path,
    references: References = "required",
    convention: ConventionName | None = None,
    exclude: Collection[str] = (),
    skip: Path | None = None,
    taken: Collection[Path] = (),
    *,
    task: Task,
) -> Scan:
    """Find the cases of a folder: folders with image files, directly in it or deeper (HGG/CASE, LGG/CASE).

    Args:
        folder: where to look, or nnU-Net's raw dataset. A folder that several links lead to is visited once.
        references: whether a case without one is incomplete, or references are not looked at.
        convention: of the task, for the labels; None: as the names of the files say.
        exclude: names of cases, folders or files to leave out.
        skip: a folder below that is not visited.
        taken: files that are used in another way.
        task: whose names the files have.

    Raises:
        ProblemsFound: there is no such folder, or the task does not fit (exit code 2); or there is nothing in it that
            is a case, excluded or taken (1).
    """
    require_folder(folder)
    if nnunet_dataset_json(folder) is not None:
        scan = scan_nnunet(folder, references, convention, exclude, task)
    else:
        scan = _scan(folder, references, convention, exclude, skip, taken, task)
    overwritten = names_of_maps([case.case_id for case in scan.cases], task)
    scan.problems.extend(overwritten.values())
    scan.partial.extend(case for case in scan.cases if case.case_id in overwritten)
    scan.cases[:] = [case for case in scan.cases if case.case_id not in overwritten]
    found = [case.case_id for case in (*scan.cases, *scan.partial)]
    if references != "ignored":
        require_names_fit(found, task, str(folder), TASK_SETTING)
        scan.remarks.extend(remarks_on_names(found, task))
    return scan


def _scan(
    folder: Path,
    references: References,
    convention: ConventionName | None,
    exclude: Collection[str],
    skip: Path | None,
    taken: Collection[Path],
    task: Task,
) -> Scan:
    names = FileNames.of(task)
    scan = Scan(task, task.convention)
    by_name: dict[str, list[_Place]] = defaultdict(list)
    seen: list[str] = []
    folders: dict[Path, list[str]] = {}
    for parent, everything in walk_folders(folder, scan.problems, skip):
        left_out = _left_out(folder.resolve(), parent, everything, exclude, names)
        scan.excluded.update(left_out.values())
        if parent.name in left_out:
            continue
        files = [name for name in everything if name not in left_out and parent / name not in taken]
        folders[parent], images = files, [name for name in files if is_image(name)]
        seen += images
        if any(names.in_case(parent.name, name) for name in images):
            by_name[parent.name].append(_Place(parent, files, names))
        elif images:
            scan.problems.append(_stray_images(parent, images, names))
    _refuse_other_names(folder, seen, names, references)
    scan.problems.extend(lost_cases(folders, by_name, names))
    if not (by_name or scan.excluded or taken):
        raise _no_case(folder, seen, scan.problems, names)
    convention, reason = _same_convention(folder, by_name, references, convention, scan)
    scan = replace(scan, convention=convention, convention_reason=reason)
    cases = [_case(name, places, folder, references, scan) for name, places in sorted(by_name.items())]
    return replace(scan, cases=[case for case in cases if case is not None])


def _left_out(
    root: Path, folder: Path, files: Sequence[str], exclude: Collection[str], names: FileNames
) -> dict[str, str]:
    """Return the names that are to be left out, of a folder or of its files, each with the name that says so."""
    is_case = any(names.in_case(root.name, name) for name in files)
    parts = folder.relative_to(root).parts or ((root.name,) if is_case else ())
    if wanted := next((part for part in parts if part in exclude), None):
        return {folder.name: wanted}
    found = {name: name if name in exclude else case_of(name, names) for name in files}
    return {name: said for name, said in found.items() if said is not None and said in exclude}


def _stray_images(folder: Path, images: Sequence[str], names: FileNames) -> Problem:
    what = f"{len(images)} image file{'s' * (len(images) != 1)}, none named {folder.name}-…: {listed(images)}"
    expected = f"one folder per case, named as its files begin: {_example('CASE', names)}"
    stems = [stem for name in images if (stem := stem_of(name))]
    cases = sorted({split[0] for stem in stems if (split := names.split(stem))})
    if folder.name in ("imagesTr", "labelsTr"):
        given = nnunet_dataset_json(folder.parent)
        advice = f"give {folder.parent}" if given else "give the folder of nnU-Net's dataset, with dataset.json"
    elif stems and all(re.fullmatch(r".+_\d{4}", stem) for stem in stems):
        advice = "these are nnU-Net's files: predict takes this very folder; for all else name them as the task does"
    elif not stems:
        advice = "convert them to NIfTI, or move them away"
    elif len(cases) == 1:
        advice = f"rename the folder to {cases[0]}, or the files"
    elif cases:
        advice = f"move each case's files into a folder of its own, for example {cases[0]}"
    else:
        advice = "rename the folder or the files, move them away, or exclude them"
    return Problem(str(folder), what, expected, advice)


def _example(case_id: str, names: FileNames) -> str:
    """Return the path of a case's first image, as the task usually names it."""
    return f"{case_id}/{names.file_name(case_id, names.task.modalities[0], names.task.convention)}"


def _no_case(folder: Path, seen: Sequence[str], problems: list[Problem], names: FileNames) -> ProblemsFound:
    """Return the error of a folder without a case; with exit code 2 if its files are named as another task's."""
    saw = list(seen)
    if not saw:
        with contextlib.suppress(OSError):  # that it cannot be read is among the problems
            saw = sorted(path.name for path in folder.iterdir())
    expected = f"one folder per case, for example {_example('patient1', names)}"
    advice = "give the folder that holds the cases' folders" + (", or see below" if problems else "")
    problem = Problem(str(folder), f"no case; there is {listed(saw) or 'nothing'}", expected, advice)
    return ProblemsFound(f"The dataset {folder} cannot be used.", [problem, *problems], exit_code=1)


def _refuse_other_names(folder: Path, seen: Sequence[str], names: FileNames, references: References) -> None:
    """Refuse files of which none is named as an image of the task, and some as images of other tasks.

    Raises:
        ProblemsFound: naming these tasks.
    """
    stems = [stem for name in seen if (stem := stem_of(name))]

    def images(files: FileNames) -> list[str]:
        return [split[0] for stem in stems if (split := files.split(stem)) and split[1].role != MASK]

    if images(names):
        return
    others = {name: cases for name in built_in_names() if (cases := images(FileNames.of(built_in(name))))}
    if others:
        told = tasks_by_names({case for cases in others.values() for case in cases})
        tasks = sorted({task.name for found in told.values() for task in found}) or list(others)
        found, expected = listed(seen), f"files as task {names.task.name} names them: {_example('CASE', names)}"
        advice = f"set {TASK_SETTING} to {' or '.join(tasks)}"
        if references == "ignored":  # to predict, by a model that is trained
            advice = f"give cases of task {names.task.name}, or a model of {' or '.join(tasks)}"
        problem = Problem(str(folder), found, expected, advice)
        raise ProblemsFound("The task does not fit the files.", [problem])


def _same_convention(
    folder: Path,
    by_name: Mapping[str, Sequence[_Place]],
    references: References,
    wanted: ConventionName | None,
    scan: Scan,
) -> tuple[ConventionName, str]:
    """Return the convention of a folder's labels and how it is known; names that fit no single one are a problem."""
    if wanted is not None:
        return wanted, AS_SET
    examples: dict[tuple[ConventionName, ...], list[str]] = defaultdict(list)
    for places in by_name.values():
        for place in places:
            found = {role.conventions: name for name, role in reversed(place.roles.items())}
            for conventions, name in found.items():
                examples[conventions].append(name)
    fitting = [name for name in scan.task.conventions if all(name in conventions for conventions in examples)]
    if fitting:
        return fitting[0], AS_NAMED
    if references != "ignored":
        # names that several conventions share tell nothing
        telling = {key: names for key, names in examples.items() if len(key) < len(scan.task.conventions)}
        text = " and ".join(
            f"names of {' or '.join(title_of(scan.task, name) for name in conventions)} in {len(names)} "
            f"case{'s' * (len(names) != 1)} ({names[0]})"
            for conventions, names in sorted(
                telling.items(), key=lambda item: list(scan.task.conventions).index(item[0][0])
            )
        )
        expected = "one convention per folder, because a value may have a meaning in one of them only"
        advice = "keep them in two folders, or say which labels all of them have: dataset.convention or --convention"
        scan.problems.append(Problem(str(folder), text, expected, advice))
    return scan.task.convention, AS_NAMED


def _case(name: str, places: Sequence[_Place], folder: Path, references: References, scan: Scan) -> Case | None:
    """Return a complete case, or None; its problems and unused files go to ``scan``."""
    problems = name_problems(name)
    roles: dict[str, list[Path]] = defaultdict(list)
    place = places[0]
    for file, found in place.roles.items():
        roles[found.role].append(place.folder / file)
    others = [place.folder / file for file in place.images if file not in place.roles and not is_oracle(name, file)]
    if len(places) > 1:
        where = ", ".join(os.path.relpath(place.folder, folder.resolve()) for place in places)
        what = f"{len(places)} cases of this name: {where}"
        problems.append(Problem(name, what, "one", "rename or remove the others"))
    if other := other_case_in(name, [file.name for file in others], place.names):
        what = f"the files of another case as well, {other}"
        problems.append(Problem(str(place.folder), what, "one folder per case", "move them into a folder of their own"))
    problems += _missing_files(name, place, [file.name for file in others], references == "required")
    for role, files in roles.items():
        if len(files) > 1:
            what = " and ".join(file.name for file in files)
            problems.append(Problem(f"{name} ({role})", what, "one file", "remove the others"))
    scan.problems.extend(problems)
    images = tuple(roles[modality][0] for modality in scan.task.modalities if roles[modality])
    reference = None if references == "ignored" else next(iter(roles[MASK]), None)
    case = Case(name, patient_of(name, scan.task), images, reference, scan.convention)
    if problems:
        scan.partial.append(case)
        return None
    scan.unused.extend(others)
    return case


def _missing_files(case_id: str, place: _Place, others: Sequence[str], with_reference: bool) -> list[Problem]:
    """Return a problem per file that a case lacks, named in the convention of its other files."""
    names, there = place.names, place.roles.values()
    needed = names.roles if with_reference else names.task.modalities
    near = [*others, *named_as_images(place.files, names)]
    found = "no such file" + (f"; beside it: {listed(near)}" if near else "")
    usual = next(
        (c for c in names.task.conventions if all(c in one.conventions for one in there)), names.task.convention
    )
    expected = "all of " + ", ".join(needed)
    return [
        Problem(f"{case_id}/{names.file_name(case_id, role, usual)}", found, expected, "add it or exclude it")
        for role in needed
        if role not in {one.role for one in there}
    ]
