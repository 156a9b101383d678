"""The split: patients stay together, volumes are balanced, the file is written once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uncseg.dataset.splits import make_splits, splits_of_cases, write_splits_once
from uncseg.errors import ProblemsFound
from uncseg.files import digest


@st.composite
def cohorts(draw):
    patients = draw(st.integers(5, 25))
    scans = [draw(st.integers(1, 3)) for _ in range(patients)]
    cases = {f"p{p:03d}-{s}": f"p{p:03d}" for p in range(patients) for s in range(scans[p])}
    volumes = {case: draw(st.floats(0, 200)) for case in cases}
    return volumes, cases


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(0, 1000))
def test_every_case_is_validated_once_and_patients_stay_together(cohort, seed):
    volumes, patients = cohort
    splits = make_splits(volumes, patients, 5, seed)
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(volumes)
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == sorted(volumes)
        assert not {patients[c] for c in fold["train"]} & {patients[c] for c in fold["val"]}
        assert fold["val"]


def test_volumes_are_balanced_better_than_by_chance():
    random = np.random.default_rng(0)
    volumes = {f"p{i:03d}": float(v) for i, v in enumerate(random.lognormal(3.5, 0.8, 100))}
    patients = {case: case for case in volumes}

    def spread(groups):
        return np.std([sum(volumes[case] for case in group) for group in groups])

    ours = spread([fold["val"] for fold in make_splits(volumes, patients, 5, seed=1)])
    names = list(volumes)
    by_chance = [spread(np.array_split(random.permutation(names), 5)) for _ in range(200)]
    assert ours < np.percentile(by_chance, 5)
    sizes = [len(fold["val"]) for fold in make_splits(volumes, patients, 5, seed=1)]
    assert sizes == [20] * 5


def test_the_seed_decides_the_split():
    volumes = {f"p{i}": 1.0 for i in range(20)}
    patients = {case: case for case in volumes}
    first, again, other = (make_splits(volumes, patients, 5, seed) for seed in (1, 1, 2))
    assert digest(first) == digest(again) != digest(other)


def test_fewer_patients_than_folds_are_refused():
    volumes = {"a-0": 1.0, "a-1": 2.0, "b-0": 1.0}
    with pytest.raises(ProblemsFound) as caught:
        make_splits(volumes, {"a-0": "a", "a-1": "a", "b-0": "b"}, 3, 0)
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].where == "split.folds"


def test_a_split_is_written_once_and_a_changed_file_is_refused(tmp_path):
    volumes = {f"p{i}": float(i) for i in range(10)}
    patients = {case: case for case in volumes}
    splits = make_splits(volumes, patients, 5, 0)
    file = tmp_path / "splits_final.json"
    assert write_splits_once(file, splits) == write_splits_once(file, splits) == digest(splits)
    with pytest.raises(ProblemsFound):
        write_splits_once(file, make_splits(volumes, patients, 2, 0))


def test_cases_drawn_one_by_one_are_in_nnunets_folds():
    """nnU-Net shuffles the sorted names by NumPy's old generator; the first folds take what does not divide."""
    cases = [f"BraTS-GLI-{number:05d}-000" for number in range(13)]
    order = np.arange(13)
    np.random.RandomState(12345).shuffle(order)
    parts = np.split(order, np.cumsum([3, 3, 3, 2]))
    found = splits_of_cases(cases[::-1], 5, 12345)
    assert [fold["val"] for fold in found] == [[cases[number] for number in sorted(part)] for part in parts]
    assert all(sorted(fold["train"] + fold["val"]) == cases for fold in found)
