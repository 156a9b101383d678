"""The cross-validation split, written once: grouped by patient, balanced by volume and seeded, or one's own."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from uncseg.config.case_lists import FoldList
from uncseg.config.sections import Split
from uncseg.errors import DamagedFile, Problem, ProblemsFound, first_problems, listed
from uncseg.files import digest, read_json, write_json

Splits = list[dict[str, list[str]]]


def make_splits(volumes_ml: Mapping[str, float], patients: Mapping[str, str], folds: int, seed: int) -> Splits:
    """Distribute patients over folds.

    Patients are taken from the largest volume to the smallest, in rounds of one per fold. Within a round the
    larger patients go to the folds with the fewest cases and then the least volume so far; the seed breaks ties.

    Args:
        volumes_ml, patients: volume of the main region (mL) and patient of each case.
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


def splits_of_cases(case_ids: Iterable[str], folds: int, seed: int) -> Splits:
    """Return the split that nnU-Net draws of these cases (``generate_crossval_split``), one by one."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    drawn = generate_crossval_split(sorted(case_ids), seed, folds)
    return [{part: list(map(str, fold[part])) for part in ("train", "val")} for fold in drawn]


def given_splits(given: FoldList, case_ids: Collection[str]) -> Splits:
    """Return the split that a file gives for these cases; other cases that it lists are left out.

    A list of training cases stays as the file says it, also where it omits some.
    """
    predicted = {case for fold in given.folds for case in fold.val}
    folds = [(predicted.difference(fold.val) if fold.train is None else fold.train, fold.val) for fold in given.folds]
    return [
        {"train": sorted(set(train).intersection(case_ids)), "val": sorted(set(val).intersection(case_ids))}
        for train, val in folds
    ]


def problems_of_given(
    split: Split, patients: Mapping[str, str], excluded: Collection[str], incomplete: Collection[str]
) -> list[Problem]:
    """Return what is wrong with a split of one's own for these cases.

    Args:
        split: has ``file`` or ``groups``.
        patients: patient of each case.
        excluded: cases that are left out, and may be listed.
        incomplete: cases with problems of their own, which are not called unknown.
    """
    given = split.given
    assert given is not None
    where = f"split.{'groups' if split.file is None else 'file'}: {given.read_from}"
    splits = given_splits(given, patients)
    kinds = [*_problems_of_cases(where, given, splits, patients, {*excluded, *incomplete})]
    if not split.allow_shared_patients:
        kinds.append(_shared_patients(where, _names(given), splits, patients, "move the scans together"))
    return [problem for kind in kinds for problem in first_problems(kind)]


def problems_of_drawn_cases(split: Split, patients: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with drawing folds of these cases one by one: patients in several of them."""
    if split.allow_shared_patients:
        return []
    splits = splits_of_cases(patients, split.folds, split.seed)
    names = [f"fold {number}" for number in range(split.folds)]
    return first_problems(_shared_patients("split.drawn", names, splits, patients, "set split.drawn to patients"))


def _names(given: FoldList) -> list[str]:
    return [f"fold {n}" if fold.group is None else f"group {fold.group}" for n, fold in enumerate(given.folds)]


def _problems_of_cases(
    where: str, given: FoldList, splits: Splits, case_ids: Collection[str], others: Collection[str]
) -> Iterator[list[Problem]]:
    """Yield the problems of each kind: cases that are unknown, in no fold, in several, and folds without a case."""
    folds: dict[str, list[str]] = defaultdict(list)
    for name, fold in zip(_names(given), splits, strict=True):
        for case in fold["val"]:
            folds[case].append(name)
    listed = {case for fold in given.folds for case in (*fold.val, *(fold.train or ()))}
    yield [
        Problem(where, case, "cases of dataset.path", "correct or remove it, or list it in dataset.exclude")
        for case in sorted(listed.difference(case_ids, others))
    ]
    expected, advice = "every case in one fold", "add it, or list it in dataset.exclude"
    yield [
        Problem(where, f"{case}, which is in {'val of ' * (case in listed)}no fold", expected, advice)
        for case in sorted(set(case_ids).difference(folds))
    ]
    yield [
        Problem(where, f"{case} in val of {' and '.join(names)}", expected, "leave it in one of them")
        for case, names in sorted(folds.items())
        if len(names) > 1
    ]
    expected, advice = "no case that a fold is trained on and judged by", "remove it from one of them"
    yield [
        Problem(where, f"{case} in train and in val of {name}", expected, advice)
        for name, fold in zip(_names(given), splits, strict=True)
        for case in sorted(set(fold["train"]).intersection(fold["val"]))
    ]
    yield [
        Problem(where, f"no case in {part} of {name}", "at least one", "correct the list, or dataset.exclude")
        for name, fold in zip(_names(given), splits, strict=True)
        for part in ("train", "val")
        if not fold[part]
    ]


def _shared_patients(
    where: str, names: Sequence[str], splits: Splits, patients: Mapping[str, str], together: str
) -> list[Problem]:
    """Return a problem per patient whose cases are in several folds, or in train and in val of one.

    ``together`` says how they come into one fold.
    """
    places: dict[str, dict[str, str]] = defaultdict(dict)
    shared = set()
    for name, fold in zip(names, splits, strict=True):
        trained = {patients[case] for case in set(fold["train"]).difference(fold["val"])}
        for case in fold["val"]:
            known = places[patients[case]]
            if patients[case] in trained or any(place != name for other, place in known.items() if other != case):
                shared.add(patients[case])
            known[case] = name
    expected, advice = "each patient in one fold", f"{together}, or set split.allow_shared_patients to true"
    problems = []
    for patient in sorted(shared):
        cases = [f"{case} ({place})" for case, place in sorted(places[patient].items())]
        found = f"patient {patient} in several folds: {listed(cases)}"
        problems.append(Problem(where, found, expected, advice))
    return problems


def read_splits(path: Path) -> Splits:
    """Return the content of nnU-Net's splits_final.json.

    Raises:
        DamagedFile: it cannot be read, or holds anything else.
    """
    advice = "delete the prepared folder that it lies in: the same command prepares it again"
    splits: Splits = read_json(path, advice, shape=Splits)
    for fold in splits:
        if not {"train", "val"} <= fold.keys():
            raise DamagedFile.of(path, f"a fold of {listed(fold) or 'nothing'}", "train and val in each fold", advice)
    return splits


def write_splits_once(path: Path, splits: Splits) -> str:
    """Write nnU-Net's splits_final.json unless it exists, and return the SHA-256 (hex) of the split.

    Raises:
        ProblemsFound: the file holds another split.
    """
    if not path.exists():
        write_json(path, splits)
    elif read_splits(path) != splits:
        advice = "delete the prepared folder to split again, or restore the file"
        problem = Problem(str(path), "another split", "the split of these cases", advice)
        raise ProblemsFound("The split was changed after it was written.", [problem])
    return digest(splits)
