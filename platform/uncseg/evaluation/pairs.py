"""Folders of NIfTI files as pairs to score: a case's prediction, reference, uncertainty maps and brain mask."""

import os
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uncseg.dataset.brats import CONVENTION_LABELS, ENDINGS, FILE_ROLES, REGIONS, map_labels
from uncseg.dataset.images import Volume, geometry_problems, read_volume
from uncseg.dataset.patients import patient_of
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.case_scores import ScoreRow, score_case
from uncseg.layout import CASE_MAPS, PREDICTION_MAPS

Scale = Literal["unit", "percent"]
LARGEST = {"unit": 1.0, "percent": 100.0}
SUFFIXES_OF_MAPS = tuple(f"_{name}" for name in dict.fromkeys((*CASE_MAPS, *PREDICTION_MAPS, "wt", "tc", "et")))
ROUNDING = 1e-5  # of maps that were written in single precision


@dataclass(frozen=True)
class Pair:
    """The files of one case."""

    case_id: str
    prediction: Path
    reference: Path
    uncertainty: dict[str, Path]
    """By region; one file may stand for all regions. Empty: no maps are scored."""
    brain: Path | None

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [self.prediction, self.reference, *self.uncertainty.values(), *([self.brain] if self.brain else [])]


def find_pairs(
    predictions: Path, references: Path, uncertainty: Path | None = None, brain: Path | None = None
) -> tuple[list[Pair], list[Problem]]:
    """Return the complete pairs, sorted by case, and one problem for each file that another one lacks.

    Args:
        predictions, references: CASE.nii.gz, CASE-seg.nii.gz or CASE_seg.nii.gz, also in subfolders, so that a BraTS
            folder can serve as references.
        uncertainty: CASE_wt.nii.gz, CASE_tc.nii.gz and CASE_et.nii.gz, or one map for all regions:
            CASE_uncertainty.nii.gz or CASE.nii.gz.
        brain: CASE.nii.gz, or a BraTS folder, of which t1n is read; the brain is where it is not 0.

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
    expected, found = (_files(folder, "seg", problems) for folder in (references, predictions))
    brains = _files(brain, "t1n", problems) if brain else {}
    problems += _without(found, expected, "reference", references)
    problems += _without(expected, found, "prediction", predictions)
    both = sorted(found.keys() & expected.keys())
    if not both:
        no_file = Problem(f"{predictions}, {references}", "no NIfTI file", "CASE.nii.gz in both", "correct the paths")
        raise ProblemsFound("There is nothing to score.", problems or [no_file])
    pairs = []
    for name in both:
        wrong: list[Problem] = []
        maps = {} if uncertainty is None else _maps(uncertainty, name, (found[name], expected[name]), wrong)
        if brain and name not in brains:
            wrong.append(Problem(name, f"no brain mask in {brain}", f"{name}.nii.gz", "add it, or leave --brain out"))
        problems += wrong
        if not wrong:
            pairs.append(Pair(name, found[name], expected[name], maps, brains.get(name)))
    return pairs, problems


def _without(files: dict[str, Path], others: Container[str], what: str, folder: Path) -> list[Problem]:
    """Return a problem for each file whose case is not among the others."""
    return [
        Problem(str(file), f"no {what}", f"one in {folder}", "add it, or leave this out")
        for name, file in sorted(files.items())
        if name not in others
    ]


def _files(folder: Path, wanted: str, problems: list[Problem]) -> dict[str, Path]:
    """Return files by case; of those with BraTS' endings only the ones of the wanted role."""
    found: dict[str, list[Path]] = defaultdict(list)
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        stems = {name: stem for name in sorted(names) if (stem := _stem(name)) is not None}
        endings = {name: next((e for e in FILE_ROLES if stem.endswith(e)), "") for name, stem in stems.items()}
        cases_here = {stems[name].removesuffix(ending) for name, ending in endings.items() if ending}
        for name, stem in stems.items():
            role = FILE_ROLES[endings[name]][0] if endings[name] else None
            # a CASE-q.nii.gz beside CASE-seg.nii.gz is neither
            other = role is None and any(stem.startswith(case) for case in cases_here)
            if role in (wanted, None) and not other:
                found[stem.removesuffix(endings[name])].append(Path(parent, name))
    for name, files in found.items():
        if len(files) > 1:
            where = ", ".join(str(file.relative_to(folder)) for file in files)
            problems.append(Problem(f"{folder}: {name}", f"{len(files)} files: {where}", "one", "remove the others"))
    return {name: files[0] for name, files in found.items() if len(files) == 1 and not _is_map(name, found)}


def _stem(name: str) -> str | None:
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    return None if ending is None or name.startswith(".") else name.removesuffix(ending)


def _is_map(name: str, cases: Container[str]) -> bool:
    """Return whether a file is one of the maps that are written beside CASE.nii.gz, such as CASE_uncertainty.nii.gz."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in cases for suffix in SUFFIXES_OF_MAPS)


def _maps(folder: Path, case: str, masks: Sequence[Path], problems: list[Problem]) -> dict[str, Path]:
    """Return a case's maps by region; its masks, where they lie in the same folder, do not count as maps."""

    def find(suffix: str) -> Path | None:
        files = [file for end in ENDINGS if (file := folder / f"{case}{suffix}{end}").is_file()]
        return next((file for file in files if not any(file.samefile(mask) for mask in masks)), None)

    maps = {region: file for region in REGIONS if (file := find(f"_{region.lower()}")) is not None}
    whole = find("_uncertainty") or find("")
    if whole is not None:
        # beside maps of TC or ET it is that of WT
        maps = {"WT": whole, **maps} if maps else dict.fromkeys(REGIONS, whole)
    if not maps:
        expected = f"{case}_wt.nii.gz, _tc, _et, or {case}.nii.gz"
        problems.append(Problem(f"{case}: uncertainty", f"no map in {folder}", expected, "add it, or exclude the case"))
    return maps


def score_pair(pair: Pair, scale: Scale) -> list[ScoreRow]:
    """Read and score one case, whose uncertainty is from 0 to 1 (unit) or from 0 to 100 (percent).

    Returns:
        The rows of :func:`~uncseg.evaluation.case_scores.score_case`, with ``case`` and ``patient`` in front.

    Raises:
        ProblemsFound: one problem for each file of the case that cannot be used.
    """
    problems: list[Problem] = []
    read = {file: read_volume(file, problems) for file in dict.fromkeys(pair.files)}
    volumes = {file: volume for file, volume in read.items() if volume is not None}
    reference = volumes.get(pair.reference)
    if reference is not None:
        for volume in volumes.values():
            problems += geometry_problems(volume, reference) if volume is not reference else []
    labels = {f: _labels(volumes[f], problems) for f in (pair.reference, pair.prediction) if f in volumes}
    maps = {f: _uncertainty(volumes[f], scale, problems) for f in set(pair.uncertainty.values()) if f in volumes}
    if problems or reference is None:
        raise ProblemsFound(f"{pair.case_id} cannot be scored.", problems, exit_code=1)
    brain = None if pair.brain is None else np.asarray(volumes[pair.brain].array != 0)
    uncertainty = {region: maps[file] for region, file in pair.uncertainty.items()}
    rows = score_case(labels[pair.reference], labels[pair.prediction], reference.spacing_mm, uncertainty, brain)
    return [{"case": pair.case_id, "patient": patient_of(pair.case_id), **row} for row in rows]


def _labels(volume: Volume, problems: list[Problem]) -> np.ndarray:
    """Return the labels of 2023; those of 2018 to 2021 (4 for ET) are mapped."""
    array = volume.array
    if np.issubdtype(array.dtype, np.floating):
        # a scale factor in the header turns 1 into 1.00000002
        whole = np.rint(array)
        array = whole if bool((np.abs(array - whole) < 1e-3).all()) else array
    counts = {label: int(np.count_nonzero(array == label)) for label in range(5)}
    convention: Literal["2023", "2018"] = "2018" if counts[4] else "2023"
    known = CONVENTION_LABELS[convention]
    if sum(counts[label] for label in known) < array.size:
        values, numbers = np.unique(array, return_counts=True)
        strange = [f"{v:.9g} ({n} voxels)" for v, n in zip(values, numbers, strict=True) if v not in known]
        expected = "only 0, 1, 2, 3 or only 0, 1, 2, 4"
        problems.append(Problem(str(volume.file), f"label {', '.join(strange[:5])}", expected, "map these labels"))
        return np.zeros(0, dtype=np.uint8)
    return map_labels(array, convention)


def _uncertainty(volume: Volume, scale: Scale, problems: list[Problem]) -> np.ndarray:
    """Return the map in [0, 1]; percent are divided in double precision, so that they meet thresholds exactly."""
    file, given = str(volume.file), f"(--uncertainty-scale {scale})"
    array = volume.array.astype(np.float64 if scale == "percent" else np.promote_types(volume.array.dtype, np.float32))
    finite = np.isfinite(array)
    if not finite.all():
        found = f"{array.size - np.count_nonzero(finite)} voxels that are NaN or infinite"
        problems.append(Problem(file, found, "finite values", "repair the map, or exclude the case"))
        return array
    low, high, largest = float(array.min()), float(array.max()), LARGEST[scale]
    found = f"values from {low:g} to {high:g}"
    if low < 0 or high > largest * (1 + ROUNDING):
        percent = scale == "unit" and low >= 0 and high <= LARGEST["percent"]
        advice = "use --uncertainty-scale percent if all maps are in percent" if percent else "correct the map"
        problems.append(Problem(file, found, f"0 to {largest:g} {given}", advice))
    elif scale == "percent" and 0 < high <= LARGEST["unit"]:
        advice = "use --uncertainty-scale unit if all maps are on that scale, else multiply this one by 100"
        problems.append(Problem(file, f"{found}, a map of another scale", f"0 to 100 {given}", advice))
    return np.clip(array / array.dtype.type(largest), 0, 1)
