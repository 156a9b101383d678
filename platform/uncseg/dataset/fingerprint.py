"""nnU-Net's dataset fingerprint computed in parts: one per case, then one per channel, joined at the end.

nnU-Net's own run() uses a process pool of its own and holds every sample of every case in memory at once. Here nnU-Net
analyses each case, and joining the parts is plain statistics; a test compares the file with nnU-Net's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uncseg.dataset.cases import Case, digest_of_files
from uncseg.dataset.finite import REPAIR
from uncseg.dataset.labels import in_main_region
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import described, is_as_described
from uncseg.kept_records import keep_record, kept_record
from uncseg.tasks.task import Task

if TYPE_CHECKING:  # its module imports ITK and nibabel, which takes half a second
    from uncseg.dataset.case_volumes import CaseVolumes

FOREGROUND_SAMPLES = 100_000_000  # nnU-Net's number for a whole dataset


def fingerprint_file(folder: Path) -> Path:
    """Return the file of the finished fingerprint in a survey's folder, named as nnU-Net names it."""
    return folder / "dataset_fingerprint.json"


def kept_fingerprint(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint in a survey's folder, or None if it is not there, or is damaged."""
    record = kept_record(fingerprint_file(folder), folder.name)
    return None if record is None else dict(record["fingerprint"])


def survey_case(folder: Path, case: Case, samples: int, task: Task) -> dict[str, Any]:
    """Check a case and compute its part of the fingerprint, unless that is done.

    Args:
        folder: the survey's, for CASE.json and, until they are joined, each channel's foreground intensities.
        samples: number of foreground intensities per channel that nnU-Net draws, with replacement.
        task: what the files mean.

    Returns:
        ``problems``, a list. If it is empty also ``warnings``, ``volume_ml`` (the main region), ``digest``
        (SHA-256 of the files), and for the fingerprint ``shape``, ``spacing`` and ``relative_size``.
    """
    from uncseg.dataset.case_volumes import read_case_volumes

    file = folder / f"{case.case_id}.json"
    if (record := kept_record(file, folder.name)) is not None and (
        kept_fingerprint(folder) is not None
        or all(is_as_described(folder / name, facts) for name, facts in record["samples"].items())
    ):
        return record
    try:
        volumes = read_case_volumes(case, task)
    except ProblemsFound as error:
        return {"problems": error.problems}
    assert volumes.labels is not None
    main = in_main_region(volumes.labels, task)
    content = {
        "problems": [],
        "warnings": [asdict(warning) for warning in volumes.warnings],
        "volume_ml": float(main.sum() * np.prod(volumes.geometry.spacing_mm)) / 1000,
        "digest": digest_of_files(case),
        **_analyse(folder, volumes, samples),
    }
    return keep_record(file, folder.name, content)


def _samples_file(folder: Path, case_id: str, channel: int) -> Path:
    return folder / f"{case_id}_{channel:04d}.npy"


def _analyse(folder: Path, volumes: "CaseVolumes", samples: int) -> dict[str, Any]:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    from uncseg.dataset.nnunet_case import LoadedCase
    from uncseg.dataset.volumes import write_array

    case = volumes.case
    shape, spacing, intensities, _, relative_size = DatasetFingerprintExtractor.analyze_case(
        [str(file) for file in case.images], str(case.reference), lambda: LoadedCase(volumes), samples
    )
    files = [_samples_file(folder, case.case_id, channel) for channel in range(len(intensities))]
    for file, values in zip(files, intensities, strict=True):
        write_array(file, values)
    sizes = {"shape": [int(n) for n in shape], "spacing": [float(mm) for mm in spacing]}
    samples_files = described(folder, [file.name for file in files])  # removed when they are joined
    return sizes | {"relative_size": float(relative_size), "samples": samples_files}


def channel_statistics(folder: Path, case_ids: Sequence[str], channel: int, modality: str) -> dict[str, float]:
    """Return statistics of one channel's foreground intensities over all cases, as nnU-Net names them.

    Raises:
        ProblemsFound: one of them is not finite, naming the case with the largest intensity.
    """
    samples = [np.load(_samples_file(folder, case, channel), mmap_mode="r") for case in case_ids]
    values = np.concatenate(samples)
    with np.errstate(over="ignore", invalid="ignore"):
        statistics = {name: float(getattr(np, name)(values)) for name in ("mean", "std", "min", "max")}
    if not np.isfinite(list(statistics.values())).all():
        largest = {case: float(np.abs(own).max(initial=0)) for case, own in zip(case_ids, samples, strict=True)}
        case = max(largest, key=lambda name: (not math.isfinite(largest[name]), largest[name]))
        found = f"intensities up to {largest[case]:.3g} in the labels, whose standard deviation overflows float32"
        problem = Problem(f"{case}, channel {modality}", found, "values that a scanner gives", REPAIR)
        raise ProblemsFound("The fingerprint cannot be computed.", [problem], exit_code=1)
    values.sort()  # vectorised; the percentiles then take half the time
    low, median, high = np.percentile(values, np.array((0.5, 50.0, 99.5)), overwrite_input=True)
    return statistics | {"median": float(median), "percentile_00_5": float(low), "percentile_99_5": float(high)}


def write_fingerprint(
    folder: Path, surveys: Mapping[str, Mapping[str, Any]], statistics: Sequence[Mapping[str, float]]
) -> None:
    """Write the fingerprint and remove the samples that it was computed from.

    ``surveys`` holds one survey per case (:func:`survey_case`), ``statistics`` those of each channel in order.
    """
    content = {
        "spacings": [survey["spacing"] for survey in surveys.values()],
        "shapes_after_crop": [survey["shape"] for survey in surveys.values()],
        "foreground_intensity_properties_per_channel": {str(i): channel for i, channel in enumerate(statistics)},
        "median_relative_size_after_cropping": float(np.median([s["relative_size"] for s in surveys.values()])),
    }
    keep_record(fingerprint_file(folder), folder.name, {"fingerprint": content})
    for case in surveys:
        for channel in range(len(statistics)):
            _samples_file(folder, case, channel).unlink(missing_ok=True)
