"""One pair to score: a case's prediction, reference, uncertainty maps and brain mask, as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uncseg.dataset.finite import count_not_finite
from uncseg.dataset.labels import convert_labels
from uncseg.dataset.patients import patient_of
from uncseg.dataset.volumes import GEOMETRY_TOLERANCE, Volume, geometry_problems, read_or_note
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.case_scores import ScoreRow, score_case
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.task import Task

Scale = Literal["unit", "percent"]
LARGEST = {"unit": 1.0, "percent": 100.0}
PAIR_TOLERANCE = 2 * GEOMETRY_TOLERANCE
"""A prediction has its first image's geometry, from which the reference's may differ, and both headers are rounded."""
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
    task: Task
    reference_convention: ConventionName
    """Convention of the task that says what the reference's values mean."""
    prediction_convention: ConventionName

    @property
    def files(self) -> list[Path]:
        """All files."""
        return [self.prediction, self.reference, *self.uncertainty.values(), *([self.brain] if self.brain else [])]


def score_pair(pair: Pair, scale: Scale) -> list[ScoreRow]:
    """Read and score one case, whose uncertainty is from 0 to 1 (unit) or from 0 to 100 (percent).

    Returns:
        The rows of :func:`~uncseg.evaluation.case_scores.score_case`, with ``case`` and ``patient`` in front.

    Raises:
        ProblemsFound: one problem for each file of the case that cannot be used.
    """
    problems: list[Problem] = []
    read = {file: read_or_note(file, problems) for file in dict.fromkeys(pair.files)}
    volumes = {file: volume for file, volume in read.items() if volume is not None}
    reference = volumes.get(pair.reference)
    if reference is not None:
        for volume in volumes.values():
            problems += geometry_problems(volume, reference, PAIR_TOLERANCE) if volume is not reference else []

    def labels(file: Path, convention: ConventionName, option: str) -> np.ndarray | None:
        return convert_labels(volumes[file], convention, problems, option, task=pair.task) if file in volumes else None

    expected = labels(pair.reference, pair.reference_convention, "--reference-convention")
    found = labels(pair.prediction, pair.prediction_convention, "--prediction-convention")
    maps = {f: _uncertainty(volumes[f], scale, problems) for f in set(pair.uncertainty.values()) if f in volumes}
    if pair.brain in volumes:
        problems += _brain_problems(volumes[pair.brain])
    if problems or reference is None or expected is None or found is None:
        raise ProblemsFound(f"{pair.case_id} cannot be scored.", problems, exit_code=1)
    brain = None if pair.brain is None else np.asarray(volumes[pair.brain].voxels != 0)
    uncertainty = {region: maps[file] for region, file in pair.uncertainty.items()}
    rows = score_case(expected, found, reference.geometry.spacing_dhw_mm, pair.task, uncertainty, brain)
    return [{"case": pair.case_id, "patient": patient_of(pair.case_id, pair.task), **row} for row in rows]


def _brain_problems(volume: Volume) -> list[Problem]:
    """Return why a brain mask, or an image of the head, does not tell the brain: the voxels that are not 0."""
    voxels, expected = volume.voxels, "0 outside the brain, and only there"
    advice = "correct the mask, or leave --brain out"
    if wrong := count_not_finite(voxels):
        found = f"{wrong} voxels that are NaN or infinite"
    elif not voxels.any():
        found = "0 everywhere"
    elif voxels.all() and voxels.min() < voxels.max():
        found = f"no voxel of 0, and values from {voxels.min():g} to {voxels.max():g}"
    else:
        return []
    return [Problem(str(volume.file), found, expected, advice)]


def _uncertainty(volume: Volume, scale: Scale, problems: list[Problem]) -> np.ndarray:
    """Return the map in [0, 1]; percent are divided in double precision, so that they meet thresholds exactly."""
    file, given = str(volume.file), f"(--uncertainty-scale {scale})"
    array = volume.voxels.astype(
        np.float64 if scale == "percent" else np.promote_types(volume.voxels.dtype, np.float32)
    )
    if wrong := count_not_finite(array):
        found = f"{wrong} voxels that are NaN or infinite"
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
