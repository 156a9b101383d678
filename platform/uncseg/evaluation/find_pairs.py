"""Finding the pairs to score in folders of NIfTI files from any source."""

import os
import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uncseg.dataset.cases import ending_of, is_image, role_in_case, role_of
from uncseg.dataset.folders import walk_folders
from uncseg.dataset.labels import AS_NAMED, AS_SET, CONVENTION_NAMES, REGIONS, Convention, describe_convention
from uncseg.errors import Problem, ProblemsFound, listed
from uncseg.evaluation.nnunet_labels import nnunet_convention
from uncseg.evaluation.pairs import Pair
from uncseg.layout import CASE_MAPS, PREDICTION_MAPS

SUFFIXES_OF_MAPS = tuple(f"_{name}" for name in dict.fromkeys((*CASE_MAPS, *PREDICTION_MAPS, "wt", "tc", "et")))
_OLD_CASES = re.compile(r"brats(17|18|19|20|2021)_", re.IGNORECASE)


@dataclass(frozen=True)
class Masks:
    """The masks of a folder by case, and what their labels mean."""

    files: dict[str, Path]
    convention: Convention
    reason: str


@dataclass(frozen=True)
class Pairs:
    """What two folders hold.

    Args:
        complete: pairs, sorted by case.
        problems: one for each file that another one lacks, and files of which it is not clear what they are.
        notes: sentences on what the labels of each folder mean.
    """

    complete: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_pairs(
    predictions: Path,
    references: Path,
    uncertainty: Path | None = None,
    brain: Path | None = None,
    prediction_convention: Convention | None = None,
    reference_convention: Convention | None = None,
) -> Pairs:
    """Find each case's prediction and reference, and on request its maps and its brain mask.

    Args:
        predictions, references: CASE.nii.gz, CASE-seg.nii.gz or CASE_seg.nii.gz, also in subfolders, so that a BraTS
            folder can serve as references.
        uncertainty: CASE_wt.nii.gz, CASE_tc.nii.gz and CASE_et.nii.gz, or one map for all regions:
            CASE_uncertainty.nii.gz or CASE.nii.gz.
        brain: CASE.nii.gz, or a BraTS folder, of which t1n is read; the brain is where it is not 0.
        prediction_convention, reference_convention: what the labels of a folder mean; None: as its files are named.

    Raises:
        ProblemsFound: a folder does not exist, or no case is in both folders.
    """
    folders = {"PREDICTIONS": predictions, "REFERENCES": references, "--uncertainty": uncertainty, "--brain": brain}
    missing = [
        Problem(name, f"no folder {folder}", "a folder of NIfTI files", "correct the path")
        for name, folder in folders.items()
        if folder and not folder.is_dir()
    ]
    if missing:
        raise ProblemsFound("There is nothing to score.", missing)
    problems: list[Problem] = []
    notes: list[str] = []
    reference = _masks(references, "REFERENCES", reference_convention, "--reference-convention", problems, notes)
    prediction = _masks(predictions, "PREDICTIONS", prediction_convention, "--prediction-convention", problems, notes)
    expected, found = reference.files, prediction.files
    brains = _files(brain, "t1n", problems) if brain else {}
    problems += _without(found, expected, "reference", references)
    problems += _without(expected, found, "prediction", predictions)
    both = sorted(found.keys() & expected.keys())
    if not both:
        no_file = Problem(f"{predictions}, {references}", "no NIfTI file", "CASE.nii.gz in both", "correct the paths")
        raise ProblemsFound("There is nothing to score.", problems or [no_file])
    maps_there = {} if uncertainty is None else _files_of_maps(uncertainty)
    pairs = []
    for name in both:
        wrong: list[Problem] = []
        maps = {} if uncertainty is None else _maps(uncertainty, maps_there, name, (found[name], expected[name]), wrong)
        if brain and name not in brains:
            wrong.append(Problem(name, f"no brain mask in {brain}", f"{name}.nii.gz", "add it, or leave --brain out"))
        problems += wrong
        if not wrong:
            conventions = reference.convention, prediction.convention
            pairs.append(Pair(name, found[name], expected[name], maps, brains.get(name), *conventions))
    lacking = _without_a_region(pairs)
    problems += lacking.values()
    pairs = [pair for pair in pairs if pair.case_id not in lacking]
    sides = {"REFERENCES": reference, "PREDICTIONS": prediction}
    described = [f"{name}: {describe_convention(side.convention, side.reason)}" for name, side in sides.items()]
    return Pairs(pairs, problems, described + notes)


def _without(files: dict[str, Path], others: Container[str], what: str, folder: Path) -> list[Problem]:
    """Return a problem for each file whose case is not among the others."""
    return [
        Problem(str(file), f"no {what}", f"one in {folder}", "add it, or leave this out")
        for name, file in sorted(files.items())
        if name not in others
    ]


def _masks(
    folder: Path, side: str, wanted: Convention | None, option: str, problems: list[Problem], notes: list[str]
) -> Masks:
    """Return the masks of a folder; names of both conventions are a problem unless one is wanted.

    Names tell a convention where they are those of BraTS. CASE.nii.gz tells none: this program writes the labels 1, 2,
    3 under it. What nnU-Net's models and datasets mean by their labels stands in dataset.json.
    """
    examples: dict[Convention, str] = {}
    left: list[str] = []
    files = _files(folder, "seg", problems, examples, left)
    if left:
        what = f"{len(left)} other file{'s' * (len(left) != 1)} of the masks' cases or in their folders"
        notes.append(f"{side}: {what}: not taken as masks ({listed(left)})")
    if wanted is not None:
        return Masks(files, wanted, AS_SET)
    if len(examples) > 1:
        found = " and ".join(f"names of {CONVENTION_NAMES[key]} ({name})" for key, name in examples.items())
        expected = "one convention per folder, because label 4 has a meaning in one of them only"
        problems.append(Problem(str(folder), found, expected, f"keep them in two folders, or give {option}"))
    if examples:
        return Masks(files, next(iter(examples)), AS_NAMED)
    if (described := nnunet_convention(folder, option)) is not None:
        return Masks(files, described, "by dataset.json")
    return Masks(files, "2023", "no name tells another")


def _files(
    folder: Path,
    wanted: str,
    problems: list[Problem],
    examples: dict[Convention, str] | None = None,
    left: list[str] | None = None,
) -> dict[str, Path]:
    """Return files by case; of those with BraTS' endings only the ones of the wanted role.

    A case has the name of its folder, as in :func:`~uncseg.dataset.scan.scan_folder`, and no other file there is one's;
    elsewhere it has the name that its files begin with.
    ``examples`` gets a file's name for each convention that names of the folder tell, ``left`` the names of other files
    beside a case's.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    others: list[str] = []
    for parent, names in walk_folders(folder, problems):
        stems = {name: name[: -len(ending)] for name in names if (ending := ending_of(name))}
        in_case = {name: (parent.name, *part) for name in stems if (part := role_in_case(parent.name, name))}
        roles = in_case or _roles(stems, wanted)
        cases_here = {case for case, _, _ in roles.values()}
        # a CASE-q.nii.gz beside CASE-seg.nii.gz is neither
        beside = tuple(f"{case}{mark}" for case in cases_here for mark in "-_")
        for name, stem in stems.items():
            if name not in roles:
                if stem.startswith(beside) or (in_case and stem != parent.name):
                    others.append(name)
                else:
                    found[stem].append(parent / name)
                continue
            case, role, convention = roles[name]
            if examples is not None and (convention == "2023" or role != "seg" or _OLD_CASES.match(case)):
                examples.setdefault(convention, name)
            if role == wanted:
                found[case].append(parent / name)
        problems += [
            Problem(str(parent / name), "an image of another format", "NIfTI, .nii.gz or .nii", "convert it to NIfTI")
            for name in names
            if is_image(name) and name not in stems
        ]
    for name, files in found.items():
        if len(files) > 1:
            where = ", ".join(os.path.relpath(file, folder.resolve()) for file in files)
            problems.append(Problem(f"{folder}: {name}", f"{len(files)} files: {where}", "one", "remove the others"))
    maps = {name for name in found if _is_map(name, found)}
    if left is not None:
        left += sorted(others + [file.name for name in maps for file in found[name]])
    return {name: files[0] for name, files in found.items() if len(files) == 1 and name not in maps}


def _roles(stems: Mapping[str, str], wanted: str) -> dict[str, tuple[str, str, Convention]]:
    """Return case, role and convention of the files that are BraTS' by their names, in a folder that is no case's.

    patient_t1.nii.gz is an image only beside patient_seg.nii.gz. Otherwise it may be the mask of a first point in time.
    """
    roles = {name: parts for name, stem in stems.items() if (parts := role_of(stem))}
    with_mask = {case for case, role, _ in roles.values() if role == "seg"}
    return {name: parts for name, parts in roles.items() if parts[1] in ("seg", wanted) or parts[0] in with_mask}


def _is_map(name: str, cases: Container[str]) -> bool:
    """Return whether a file is one of the maps that are written beside CASE.nii.gz, such as CASE_uncertainty.nii.gz."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in cases for suffix in SUFFIXES_OF_MAPS)


def _files_of_maps(folder: Path) -> dict[str, list[Path]]:
    """Return the NIfTI files in a folder by their names without the ending, in lower case."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if ending := ending_of(file.name):
            found[file.name[: -len(ending)].lower()].append(file)
    return found


def _maps(
    folder: Path, there: Mapping[str, list[Path]], case: str, masks: Sequence[Path], problems: list[Problem]
) -> dict[str, Path]:
    """Return a case's maps by region; its masks, where they lie in the same folder, do not count as maps.

    ``there`` is what :func:`_files_of_maps` returns.
    """

    def find(suffix: str) -> Path | None:
        files = there.get(f"{case}{suffix}".lower(), [])
        files = [file for file in files if file.name.startswith(case)] or files
        files = [file for file in files if not any(_is_same(file, mask) for mask in masks)]
        if len(files) > 1:
            names = " and ".join(file.name for file in files)
            problems.append(Problem(f"{case}: uncertainty", names, "one of them", "remove the other"))
        return files[0] if files else None

    maps = {region: file for region in REGIONS if (file := find(f"_{region.lower()}")) is not None}
    whole = find("_uncertainty") or find("")
    if whole is not None:
        # beside maps of TC or ET it is that of WT
        maps = {"WT": whole, **maps} if maps else dict.fromkeys(REGIONS, whole)
    if not maps:
        expected = f"{case}_wt.nii.gz, _tc, _et, or {case}.nii.gz"
        problems.append(Problem(f"{case}: uncertainty", f"no map in {folder}", expected, "add it, or exclude the case"))
    return maps


def _is_same(one: Path, other: Path) -> bool:
    # a link to nothing is no other file; whoever reads it says so
    return one.exists() and other.exists() and one.samefile(other)


def _without_a_region(pairs: Sequence[Pair]) -> dict[str, Problem]:
    """Return a problem per case that lacks a map of a region of which others have one."""
    regions = [region for region in REGIONS if any(region in pair.uncertainty for pair in pairs)]
    missing = {pair.case_id: [region for region in regions if region not in pair.uncertainty] for pair in pairs}
    expected = f"maps of {', '.join(regions)}, as other cases have"
    return {
        case: Problem(f"{case}: uncertainty", f"no map of {', '.join(without)}", expected, "add it")
        for case, without in missing.items()
        if without
    }
