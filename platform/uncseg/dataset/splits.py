"""The cross-validation split: grouped by patient, balanced by tumour volume, seeded, written once."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, read_json, write_json

Splits = list[dict[str, list[str]]]


def make_splits(volumes_ml: Mapping[str, float], patients: Mapping[str, str], folds: int, seed: int) -> Splits:
    """Distribute patients over folds.

    Patients are taken from the largest tumour volume to the smallest, in rounds of one per fold. Within a round the
    larger patients go to the folds with the fewest cases and then the least volume so far; the seed breaks ties.

    Args:
        volumes_ml, patients: whole-tumour volume (mL) and patient of each case.
        folds: number of folds.
        seed: of the order of tied folds.

    Returns:
        One entry per fold, ``{"train": [...], "val": [...]}``, each list sorted; every case is in one ``val``.

    Raises:
        ProblemsFound: there are fewer patients than folds.
    """
    groups = defaultdict(list)
    for case in sorted(volumes_ml):
        groups[patients[case]].append(case)
    if len(groups) < folds:
        found, expected = f"{folds} folds for {len(groups)} patients", "at most as many folds as patients"
        advice = f"set split.folds to {len(groups)} or less, or add patients"
        raise ProblemsFound("The cases cannot be split.", [Problem("split.folds", found, expected, advice)])
    tie = np.random.default_rng(seed).permutation(folds)
    volume = {patient: sum(volumes_ml[case] for case in cases) for patient, cases in groups.items()}
    order = sorted(groups, key=lambda patient: (-volume[patient], patient))
    members: list[list[str]] = [[] for _ in range(folds)]
    totals = [0.0] * folds
    for start in range(0, len(order), folds):
        open_folds = set(range(folds))
        for patient in order[start : start + folds]:
            fold = min(open_folds, key=lambda f: (len(members[f]), totals[f], tie[f]))
            open_folds.remove(fold)
            members[fold] += groups[patient]
            totals[fold] += volume[patient]
    return [{"train": sorted(set(volumes_ml).difference(val)), "val": sorted(val)} for val in members]


def write_splits_once(path: Path, splits: Splits) -> str:
    """Write nnU-Net's splits_final.json unless it exists, and return the SHA-256 (hex) of the split.

    Raises:
        ProblemsFound: the file holds another split.
    """
    if not path.exists():
        write_json(path, splits)
    elif read_json(path) != splits:
        advice = "delete the prepared folder to split again, or restore the file"
        problem = Problem(str(path), "another split", "the split of this seed and these cases", advice)
        raise ProblemsFound("The split was changed after it was written.", [problem])
    return digest(splits)
