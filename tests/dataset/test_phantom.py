"""Phantoms: the rater model against many drawn raters, and files in the layout of their task."""

import json
import re

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from support.commands import uncseg
from support.own_tasks import APART, LIVER, PROSTATE, SHELL
from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.cases import oracle_path
from uncseg.dataset.check import check_dataset
from uncseg.dataset.patients import find_patients
from uncseg.dataset.phantom import phantom_cases, write_phantoms
from uncseg.dataset.phantom_anatomy import draw_anatomy, draw_rater, smooth_field
from uncseg.dataset.phantom_bodies import Body, bodies_of
from uncseg.dataset.phantom_images import contrast, draw_images
from uncseg.dataset.scan import scan_folder
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import built_in, built_in_names, paper_task
from uncseg.tasks.nnunet_dataset import task_of_dataset_json
from uncseg.tasks.task import Task

PAPER = paper_task()
ALL = [*map(built_in, built_in_names()), PROSTATE, APART, LIVER, SHELL]
DIFFERENT = [built_in("gli-2023"), built_in("gli-2024"), built_in("ped-2024"), built_in("met"), APART, LIVER, SHELL]


def named(tasks):
    return {"argvalues": tasks, "ids": [task.name for task in tasks]}


def drawn(task, size=28, seed=1):
    return draw_anatomy(size, np.random.default_rng(seed), np.random.default_rng(seed + 1), task)


@pytest.mark.parametrize("task", **named(DIFFERENT))
@pytest.mark.parametrize("main", ["first", "last"])
def test_q_is_the_share_of_raters_that_give_a_voxel_to_the_main_region(task, main):
    region = list(task.regions)[0 if main == "first" else -1]
    task = Task.model_validate(task.model_dump() | {"main_region": region})
    anatomy, random, raters = drawn(task, size=32), np.random.default_rng(3), 400
    numbers = [task.labels[label] for label in task.regions[region]]
    share = np.mean([np.isin(draw_rater(anatomy, random), numbers) for _ in range(raters)], axis=0)
    q = anatomy.q.astype(np.float64)
    error = np.abs(share - q) / np.sqrt(np.maximum(q * (1 - q), 1e-3) / raters)
    assert ((q > 0.05) & (q < 0.95)).sum() > 80
    assert np.percentile(error, 99.9) < 4
    assert share[q == 0].max() == 0


def test_raters_are_correlated_in_space():
    fields = np.stack([smooth_field(np.random.default_rng(seed), 24, 2.5) for seed in range(60)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.std() == pytest.approx(1, abs=0.05)
    # for white noise smoothed with sd s, the correlation at lag d is exp(−d²/4s²)
    for lag in (1, 3, 5):
        found = np.corrcoef(fields.ravel(), np.roll(fields, lag, axis=1).ravel())[0, 1]
        assert found == pytest.approx(np.exp(-(lag**2) / (4 * 2.5**2)), abs=0.06)


def test_cases_are_like_brats(tmp_path):
    write_phantoms(tmp_path, cases=6, size=40, seed=0, task=PAPER)
    cases = scan_folder(tmp_path, task=paper_task()).cases
    assert len(cases) == 6
    assert len({case.patient for case in cases}) == 5
    stored = set()
    for case in cases:
        labels, reference = read_reference(case, task=paper_task())
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        for file in (*case.images, oracle_path(case)):
            image = sitk.ReadImage(str(file))
            stored.add(image.GetPixelIDTypeAsString())
            assert image.GetSize() == reference.size == (40, 40, 40)
            assert image.GetOrigin() == reference.origin_mm == (0, -239, 0)
            assert image.GetSpacing() == (1, 1, 1)
    assert stored == {"16-bit signed integer", "32-bit float"}


@pytest.mark.parametrize("task", **named(ALL))
def test_surfaces_cross_for_no_rater(task):
    anatomy = drawn(task, size=32, seed=0)
    assert sorted({layer.label for layer in anatomy.layers}) == sorted(task.labels.values())
    for layer in anatomy.layers:
        if layer.around is not None:
            outside = anatomy.layers[layer.around].surface
            inside = np.isfinite(layer.surface)
            assert (outside[inside] < layer.surface[inside]).all()


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (built_in("gli-2023"), (Body((2, 3, 1)),)),
        (built_in("gli-2024"), (Body((2, 3, 1)), Body((4,)))),
        (built_in("ped-2024"), (Body((4, 1, 2, 3)),)),
        (PROSTATE, (Body((1,)),)),
        (APART, (Body((1,)), Body((2,)), Body((3,)))),
        (LIVER, (Body((1,), (Body((2,)), Body((2,)))),)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bodies_follow_the_regions(task, expected):
    assert bodies_of(task, task.phantom.lesions[0]) == expected


def test_metastases_are_several_small_bodies():
    met, counts = built_in("met"), []
    for seed in range(12):
        mask = drawn(met, size=48, seed=2 * seed).q > 0.5
        volumes = np.bincount(ndimage.label(mask)[0].ravel())[1:]
        counts.append(len(volumes))
        assert volumes.max() < 0.5 * (drawn(PAPER, size=48, seed=2 * seed).q > 0.5).sum()
    assert min(counts) >= 2
    assert max(counts) >= 6


def test_a_resection_cavity_is_beside_the_tumour():
    touching, task = [], built_in("gli-2024")
    for seed in range(10):
        labels = draw_rater(drawn(task, size=48, seed=2 * seed), np.random.default_rng(seed))
        cavity, tumour = labels == 4, np.isin(labels, (1, 2, 3))
        assert cavity.sum() > 100
        assert tumour.sum() > 100
        touching.append((ndimage.binary_dilation(cavity) & tumour).sum() / tumour.sum())
    assert np.mean(touching) < 0.02


@pytest.mark.parametrize("task", **named(ALL))
def test_each_label_can_be_told_in_some_modality(task):
    table = contrast(task)
    assert tuple(table) == task.modalities
    numbers = (0, *task.labels.values())
    for one in numbers:
        for other in numbers:
            apart = max(abs(row.get(one, 0) - row.get(other, 0)) for row in table.values())
            assert one == other or apart >= 0.25
    anatomy = drawn(task, size=32)
    images = draw_images(anatomy, np.random.default_rng(0), task)
    assert all((image[anatomy.brain] > 0).all() and not image[~anatomy.brain].any() for image in images.values())


def test_files_and_labels_are_those_of_the_tasks_usual_convention(tmp_path):
    for task, names, values in (
        (built_in("gli-2018"), ["_flair", "_seg", "_t1", "_t1ce", "_t2"], {0, 1, 2, 4}),
        (built_in("gli-2024"), ["-seg", "-t1c", "-t1n", "-t2f", "-t2w"], {0, 1, 2, 3, 4}),
        (LIVER, ["-arterial", "-seg", "-venous"], {0, 1, 2}),
    ):
        (folder,) = write_phantoms(tmp_path / task.name, cases=1, size=32, seed=1, task=task)
        expected = sorted([*names, "-q"])
        assert sorted(file.name for file in folder.iterdir()) == [f"{folder.name}{name}.nii.gz" for name in expected]
        mask = sitk.ReadImage(str(next(folder.glob("*[-_]seg.nii.gz"))))
        assert set(np.unique(sitk.GetArrayFromImage(mask))) == values
        record = json.loads((tmp_path / task.name / "phantoms.json").read_text())
        assert record["task"] == task.name


def test_the_same_seed_writes_the_same_files(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_phantoms(tmp_path / name, cases=1, size=24, seed=seed, task=PAPER)
    file = "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz"
    a, b, c = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / n / file))) for n in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_existing_phantoms_are_kept(tmp_path):
    (folder,) = write_phantoms(tmp_path / "p", cases=1, size=24, seed=0, task=PAPER)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    write_phantoms(tmp_path / "p", cases=1, size=24, seed=0, task=PAPER)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    for cases, task in ((2, PAPER), (1, built_in("ssa"))):
        with pytest.raises(ProblemsFound, match="another folder"):
            write_phantoms(tmp_path / "p", cases=cases, size=24, seed=0, task=task)


@pytest.mark.parametrize("task", **named([task for task in ALL if task.cases]))
def test_names_of_phantoms_tell_their_task(task):
    names = [case.name for case in phantom_cases(12, task)]
    assert len(set(names)) == 12
    assert all(re.fullmatch(task.cases, name) for name in names)


@pytest.mark.parametrize(("task", "scans"), [(PAPER, 2), (built_in("gli-2024"), 2), (PROSTATE, 1)])
def test_every_fifth_patient_has_two_scans_where_names_tell_patients(task, scans):
    cases = phantom_cases(12, task)
    assert [case.name for case in cases if case.patient == 4] == [case.name for case in cases[4 : 4 + scans]]
    assert max(case.scan for case in cases) == scans - 1
    patients, _ = find_patients([case.name for case in cases], task.patients, task=task)
    assert len(set(patients.of.values())) == len({case.patient for case in cases})


def test_a_tasks_pattern_tells_the_patients_of_its_phantoms():
    task = Task.model_validate(PROSTATE.model_dump() | {"patients": r"prostate-(\d+)"})
    assert [case.scan for case in phantom_cases(6, task)] == [0, 0, 0, 0, 0, 1]


def test_the_command_writes_phantoms_of_a_task(tmp_path):
    printed = uncseg("phantom", tmp_path / "cases", "--task", "met", "--cases", 2, "--size", 24)
    assert "2 cases of met" in printed
    assert sorted(folder.name for folder in (tmp_path / "cases").glob("*-*")) == [
        "BraTS-MET-00000-000",
        "BraTS-MET-00001-000",
    ]


@pytest.mark.parametrize(
    ("phantom", "found"),
    [
        ({"lesions": [3, 2]}, "phantom.lesions is 3, 2"),
        ({"lesions": [1, 31]}, "phantom.lesions is 1, 31"),
        ({"cases": "case-{number}"}, "phantom.cases is case-{number}, which cannot be filled in"),
        ({"cases": "case"}, "phantom.cases is case, which names no case of each patient"),
        ({"cases": "a/{patient}"}, "phantom.cases is a/{patient}, which names no case"),
    ],
)
def test_phantoms_that_cannot_be_drawn_are_refused(phantom, found):
    with pytest.raises(ValueError, match=re.escape(found)):
        Task.model_validate(PROSTATE.model_dump() | {"phantom": phantom})


FROM_JSON, _ = task_of_dataset_json(
    {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "whole": [1, 2], "inner": 2}}, "a file"
)
LARGE_VALUES = {"own": {"images": {"t2w": "_T2"}, "mask": "_mask", "values": {"prostate": 4095}}}
LARGE = Task.model_validate(PROSTATE.model_dump() | {"name": "large", "conventions": LARGE_VALUES})


@pytest.mark.parametrize("task", **named([*ALL, FROM_JSON, LARGE]))
def test_phantoms_pass_the_check_of_their_task(tmp_path, task):
    write_phantoms(tmp_path, cases=6, size=32, seed=4, task=task)
    checked = check_dataset(tmp_path, task)
    assert checked.warnings == []
    assert len(set(checked.patients.of.values())) == len({case.patient for case in phantom_cases(6, task)})
    scan = scan_folder(tmp_path, task=task)
    found = {number for case in scan.cases for number in np.unique(read_reference(case, task)[0])}
    assert found == {0, *task.labels.values()}
