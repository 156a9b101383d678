"""Prepared cases, plans and splits that were damaged or changed: made again, or named before anything is trained."""

import gzip
import shutil

import numpy as np
import pytest

from support.small_experiment import write_small_experiment
from uncseg.config.experiment import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.prepared_cases import PreparedCases
from uncseg.errors import DamagedFile
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture(scope="module")
def prepared_root(local_ray, tmp_path_factory):
    """A folder with six cases, prepared; the reference of the first is not compressed, and so is written again."""
    root = tmp_path_factory.mktemp("damaged")
    first, *_ = write_phantoms(root / "cases", cases=6, size=28, seed=0, task=paper_task())
    packed = first / f"{first.name}-seg.nii.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    prepare_cases(load_experiment(write_small_experiment(root)).resolved())
    return root


@pytest.fixture
def experiment(prepared_root):
    return load_experiment(prepared_root / "experiment.yaml").resolved()


def cut(file):
    file.write_bytes(file.read_bytes()[:-4])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def arrays(prepared):
    folder = str(prepared.dataset / "nnUNetPlans_3d_fullres")
    loaded = {case: PreparedCases(folder, [case]).load_case(case) for case in PreparedCases.get_identifiers(folder)}
    found = {case: (data[:], labels[:], str(properties)) for case, (data, labels, _, properties) in loaded.items()}
    for file in (*prepared.oracle.iterdir(), *(prepared.raw_dataset / "labelsTr").iterdir()):
        found[file.name] = (file.read_bytes(),)
    return found


def test_damaged_cases_are_prepared_again_and_the_others_are_not_touched(experiment, capsys):
    prepared = prepare_cases(experiment)
    before = arrays(prepared)
    names = sorted(file.stem for file in prepared.records.iterdir())
    cases = prepared.dataset / "nnUNetPlans_3d_fullres"
    times = {file.name: file.stat().st_mtime_ns for file in cases.iterdir()}
    flip(prepared.raw_dataset / "labelsTr" / f"{names[0]}.nii.gz")
    cut(cases / f"{names[1]}.b2nd")
    flip(cases / f"{names[2]}_seg.b2nd")
    empty(cases / f"{names[3]}.pkl")
    (prepared.oracle / f"{names[4]}.npy").unlink()
    capsys.readouterr()
    prepare_cases(experiment)
    said = " ".join(capsys.readouterr().err.split())
    assert f"damaged or changed: {', '.join(names[:4])} and 1 more" in said
    after = arrays(prepared)
    assert after.keys() == before.keys()
    for name, parts in before.items():
        for ours, theirs in zip(parts, after[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    again = {file.name for file in cases.iterdir() if file.stat().st_mtime_ns != times[file.name]}
    assert again == {f"{name}{ending}" for name in names[:5] for ending in (".b2nd", "_seg.b2nd", ".pkl")}
    steps = []
    prepare_cases(experiment, progress=lambda *step: steps.append(step))
    assert steps == []


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_damaged_record_of_a_case_costs_that_case(experiment, damage):
    prepared = prepare_cases(experiment)
    record = sorted(prepared.records.iterdir())[5]
    damage(record)
    steps = []
    prepare_cases(experiment, progress=lambda what, done, total: steps.append((what, done, total)))
    assert steps == [("preprocessed cases", 0, 1), ("preprocessed cases", 1, 1)]


@pytest.mark.parametrize("name", ["splits_final.json", "nnUNetPlans.json", "dataset.json"])
def test_plans_and_splits_that_were_edited_are_refused_by_name(experiment, name):
    prepared = prepare_cases(experiment)
    file = prepared.dataset / name
    whole = file.read_bytes()
    for changed in (whole.replace(b"0", b"1", 1), whole[:-9], b"", None):
        assert changed != whole
        if changed is None:
            file.unlink()
        else:
            file.write_bytes(changed)
        with pytest.raises(DamagedFile) as raised:
            prepare_cases(experiment)
        (problem,) = raised.value.problems
        assert problem.where == str(file)
        assert "delete the prepared folder" in problem.advice
        file.write_bytes(whole)
    prepare_cases(experiment)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_record_of_the_end_is_named(experiment, content):
    prepared = prepare_cases(experiment)
    whole = prepared.done.read_bytes()
    prepared.done.write_bytes(content)
    with pytest.raises(DamagedFile) as raised:
        prepare_cases(experiment)
    assert raised.value.problems[0].where == str(prepared.done)
    prepared.done.write_bytes(whole)
    prepare_cases(experiment)


def test_a_damaged_survey_of_a_stopped_preparation_is_made_again(local_ray, experiment, tmp_path):
    prepared = prepare_cases(experiment)
    before = arrays(prepared)
    plans, splits = prepared.plans.read_bytes(), prepared.splits.read_bytes()
    (survey,) = prepared.root.parent.glob("*-survey-*")
    shutil.rmtree(prepared.root)
    flip(survey / "dataset_fingerprint.json")
    empty(sorted(survey.glob("BraTS*.json"))[0])
    assert prepare_cases(experiment) == prepared
    assert (prepared.plans.read_bytes(), prepared.splits.read_bytes()) == (plans, splits)
    after = arrays(prepared)
    for name, parts in before.items():
        for ours, theirs in zip(parts, after[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)
