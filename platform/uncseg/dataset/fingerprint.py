"""nnU-Net's dataset fingerprint in parts: one a case, one a channel, joined at the end.

nnU-Net's own run() joins them behind a pool of processes of its own, with every sample of every case in memory at
once. Here nnU-Net analyses each case, and the joining is plain statistics; a test holds the file against nnU-Net's.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.dataset.brats import BratsCase, link_or_map, read_reference
from uncseg.dataset.check import check_case
from uncseg.files import read_json, whole_file, write_json
from uncseg.layout import PreparedFolder

FOREGROUND_SAMPLES = 10e7  # nnU-Net's number for a whole dataset


def fingerprint_file(prepared: PreparedFolder) -> Path:
    """Where nnU-Net looks for the fingerprint."""
    return prepared.dataset / "dataset_fingerprint.json"


def raw_images(prepared: PreparedFolder, case: BratsCase) -> list[str]:
    """Files of a case in nnU-Net's raw folder, one a channel."""
    folder = prepared.raw_dataset / "imagesTr"
    return [str(folder / f"{case.case_id}_{channel:04d}.nii.gz") for channel in range(len(case.images))]


def raw_reference(prepared: PreparedFolder, case_id: str) -> Path:
    """Reference of a case in nnU-Net's raw folder."""
    return prepared.raw_dataset / "labelsTr" / f"{case_id}.nii.gz"


def survey_case(prepared: PreparedFolder, case: BratsCase, number_of_cases: int) -> dict[str, Any]:
    """Check a case, link it into the raw folder, take its part of the fingerprint; only read where that was done.

    Returns:
        problems, a list; where it is empty also patient, volume_ml (whole tumour), digest (SHA-256 of the files),
        and for the fingerprint shape, spacing and relative_size. The case's foreground intensities, (channels,
        samples), go to ``fingerprint/CASE.npy``.
    """
    record = _record(prepared, case.case_id)
    if record.is_file():
        content = read_json(record)
        assert isinstance(content, dict)
        return content
    problems = check_case(case)
    if problems:
        return {"problems": problems}
    link_or_map(case, prepared.raw_dataset / "imagesTr", prepared.raw_dataset / "labelsTr")
    reference, image = read_reference(case)
    content = {
        "problems": [],
        "patient": case.patient,
        "volume_ml": float((reference > 0).sum() * np.prod(image.GetSpacing())) / 1000,
        "digest": _digest_of_files(case),
        **_analyse(prepared, case, int(FOREGROUND_SAMPLES // number_of_cases)),
    }
    write_json(record, content)
    return content


def _record(prepared: PreparedFolder, case_id: str) -> Path:
    return prepared.root / "fingerprint" / f"{case_id}.json"


def _samples_file(prepared: PreparedFolder, case_id: str) -> Path:
    return prepared.root / "fingerprint" / f"{case_id}.npy"


def _digest_of_files(case: BratsCase) -> str:
    whole = hashlib.sha256()
    for file in (*case.images, case.reference):
        if file is not None:
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def _analyse(prepared: PreparedFolder, case: BratsCase, samples: int) -> dict[str, Any]:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    shape, spacing, intensities, _, relative_size = DatasetFingerprintExtractor.analyze_case(
        raw_images(prepared, case), str(raw_reference(prepared, case.case_id)), SimpleITKIO, samples
    )
    with whole_file(_samples_file(prepared, case.case_id)) as temporary:
        np.save(temporary, np.asarray(intensities))
    return {
        "shape": [int(n) for n in shape],
        "spacing": [float(mm) for mm in spacing],
        "relative_size": float(relative_size),
    }


def channel_statistics(prepared: PreparedFolder, case_ids: Sequence[str], channel: int) -> dict[str, float]:
    """Statistics of one channel's foreground intensities over all cases, as nnU-Net names them."""
    parts = [np.load(_samples_file(prepared, case), mmap_mode="r")[channel] for case in case_ids]
    values = np.concatenate(parts)
    statistics = {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }
    low, median, high = np.percentile(values, np.array((0.5, 50.0, 99.5)), overwrite_input=True)
    return statistics | {"median": float(median), "percentile_00_5": float(low), "percentile_99_5": float(high)}


def write_fingerprint(
    prepared: PreparedFolder,
    surveys: Mapping[str, Mapping[str, Any]],
    statistics: Sequence[Mapping[str, float]],
) -> None:
    """Write nnU-Net's dataset_fingerprint.json, then drop the samples it was made from.

    Args:
        prepared: where.
        surveys: of every case by id, in order (:func:`survey_case`).
        statistics: of every channel in order (:func:`channel_statistics`).
    """
    content = {
        "spacings": [survey["spacing"] for survey in surveys.values()],
        "shapes_after_crop": [survey["shape"] for survey in surveys.values()],
        "foreground_intensity_properties_per_channel": {str(i): channel for i, channel in enumerate(statistics)},
        "median_relative_size_after_cropping": float(np.median([s["relative_size"] for s in surveys.values()])),
    }
    write_json(fingerprint_file(prepared), content)
    for case in surveys:
        _samples_file(prepared, case).unlink(missing_ok=True)
