"""Cases to predict: a BraTS folder, or nnU-Net's plain input files (CASE_0000.nii.gz, CASE_0001.nii.gz, …)."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from uncseg.dataset.brats import MODALITIES, BratsCase, scan_folder
from uncseg.dataset.patients import patient_of
from uncseg.errors import Problem, ProblemsFound

_CHANNELS = {
    "t1n": ("t1n", "t1", "t1w", "t1native", "nativet1"),
    "t1c": ("t1c", "t1ce", "t1gd", "t1wgd", "t1post", "t1km", "t1contrast"),
    "t2w": ("t2w", "t2"),
    "t2f": ("t2f", "flair", "t2flair", "flairt2"),
}


def find_inputs(folder: Path, dataset_json: Mapping[str, Any]) -> tuple[list[BratsCase], list[Problem]]:
    """Return the complete cases, sorted by id, and the problems of the others.

    Args:
        folder: holds nnU-Net's files, or one or many BraTS cases at any depth, with references or without.
        dataset_json: the model's; its channels tell how many images a case has, and in which order.

    Raises:
        ProblemsFound: there is no such folder (exit code 2), nothing in it (1), or it is a BraTS folder and the model's
            channels are not its four modalities.
    """
    channels = dataset_json["channel_names"]
    if folder.is_dir() and (plain := _plain_files(folder)):
        return _plain_cases(folder, plain, len(channels))
    order = _order(list(channels.values()), folder)
    cases, problems = scan_folder(folder, require_reference=False)
    return [replace(case, images=tuple(case.images[n] for n in order)) for case in cases], problems


def _plain_files(folder: Path) -> dict[str, dict[int, Path]]:
    """Return nnU-Net's files by case and channel."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in sorted(folder.iterdir()):
        if match := re.fullmatch(r"([^.].*)_(\d{4})(\.nii\.gz|\.nii)", file.name):
            found[match[1]][int(match[2])] = file
    return found


def _plain_cases(
    folder: Path, files: Mapping[str, Mapping[int, Path]], channels: int
) -> tuple[list[BratsCase], list[Problem]]:
    cases, problems = [], []
    for name, by_channel in sorted(files.items()):
        if sorted(by_channel) == list(range(channels)):
            images = tuple(by_channel[n] for n in range(channels))
            cases.append(BratsCase(name, patient_of(name), images, None, "2023"))
        else:
            found = "channels " + ", ".join(f"{n:04d}" for n in sorted(by_channel))
            expected = f"0000 to {channels - 1:04d}, as the model was trained with"
            problems.append(Problem(str(folder / name), found, expected, "add or remove files"))
    return cases, problems


def _order(channels: list[str], folder: Path) -> list[int]:
    """Return the index of the BraTS image for each of the model's channels; unnamed channels are in BraTS' order."""
    plain = [re.sub("[^a-z0-9]", "", name.lower()) for name in channels]
    named = [next((n for n, m in enumerate(MODALITIES) if name in _CHANNELS[m]), None) for name in plain]
    known, in_order = [n for n in named if n is not None], list(range(len(MODALITIES)))
    if len(channels) == len(MODALITIES) and not known:
        return in_order
    if sorted(known) != in_order or len(known) != len(channels):
        found = f"channels {', '.join(channels)}, and a BraTS folder, {folder}"
        expected = "each of " + ", ".join(MODALITIES) + " once, by one of its usual names"
        advice = "give nnU-Net's files in the model's order, CASE_0000.nii.gz, …, or correct its dataset.json"
        title, problem = (
            "It is not clear which image belongs to which channel.",
            Problem("MODEL", found, expected, advice),
        )
        raise ProblemsFound(title, [problem])
    return known
