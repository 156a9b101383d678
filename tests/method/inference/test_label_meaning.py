"""Models that others trained: their labels, regions and channels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from uncseg.dataset.inputs import find_inputs
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import dataset_description
from uncseg.errors import ProblemsFound
from uncseg.estimators.moments import Moments
from uncseg.method.inference.label_meaning import (
    known_task,
    label_numbers,
    region_channels,
    region_probabilities,
    renumbered,
)
from uncseg.method.inference.model_folder import ModelFolder, open_model_folder
from uncseg.method.settings import TrainerSettings
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tasks.nnunet_dataset import modalities_of
from uncseg.tasks.outputs import Outputs
from uncseg.tasks.task import Task


@pytest.mark.parametrize(
    ("labels", "task", "meaning"),
    [
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, "gli-2023", {1: 1, 2: 2, 3: 3}),
        # Medical Segmentation Decathlon, Task01
        (
            {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
            "gli-2023",
            {1: 2, 2: 1, 3: 3},
        ),
        # the challenge's own names since 2024
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3}, "gli-2023", {1: 1, 2: 2, 3: 3}),
        # nnU-Net's conversion of BraTS 2021, with regions
        (
            {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
            "gli-2023",
            {1: 2, 2: 1, 3: 3},
        ),
        ({"background": 0, "wt": [1, 2, 3], "tc": [1, 3], "et": 3, "ignore": 4}, "gli-2023", {1: 1, 2: 2, 3: 3}),
        # after treatment, in another order than the challenge's
        (
            {"background": 0, "Resection cavity": 1, "SNFH": 2, "NETC": 3, "ET": 4},
            "gli-2024",
            {1: 4, 2: 2, 3: 1, 4: 3},
        ),
        (
            {"background": 0, "cavity": [1], "whole tumor": [2, 3, 4], "core": [2, 4], "enhancing": [4]},
            "gli-2024",
            {1: 4, 2: 1, 3: 2, 4: 3},
        ),
        ({"background": 0, "ET": 1, "NET": 2, "CC": 3, "ED": 4}, "ped-2024", {1: 1, 2: 2, 3: 3, 4: 4}),
        # no region tells the two parts of the core apart, and no score needs it
        ({"background": 0, "WT": [1, 2, 3, 4], "TC": [1, 2, 3], "ET": [2]}, "ped-2024", {2: 1, 1: 2, 3: 3, 4: 4}),
        ({"background": 0, "NC": 2, "edema": 1, "ET": 3}, "ped-2023", {2: 1, 1: 2, 3: 3}),
    ],
)
def test_labels_are_found_by_their_usual_names(labels, task, meaning):
    found, numbers = known_task(labels, 4)
    assert (found.name, numbers) == (task, meaning)
    own = np.array([0, *meaning])
    np.testing.assert_array_equal(renumbered(own, meaning), [0, *meaning.values()])


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "liver": 1, "tumour": 2},
        {"background": 0, "NCR": 1, "ED": 2, "ET": 3, "cavum": 4},
        {"background": 0, "NCR": 1, "ED": 2, "edema": 3},
        {"background": 0, "a": [1, 2, 3], "b": [1, 2], "c": [3]},
        {"background": 0, "a": [1, 2], "b": [2]},
    ],
)
def test_labels_other_than_brats_are_of_no_known_task(labels):
    assert known_task(labels, 4) is None


def test_regions_of_another_organ_are_not_taken_for_those_of_brats_by_their_sizes(model_of):
    """KiTS: as many regions of as many labels as in BraTS, and one image."""
    model = model_of({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2})
    assert list(model.task.regions) == ["kidney", "masses", "tumor"]
    assert model.task.main_region == "kidney"
    assert model.meaning == {1: 1, 2: 2, 3: 3}


def test_regions_that_are_alike_are_told_by_their_names_alone():
    task = Task(
        modalities=("ct",), labels={"liver": 1, "spleen": 2}, regions={"liver": ("liver",), "spleen": ("spleen",)}
    )
    assert label_numbers({"background": 0, "Spleen": [1], "Liver": [2]}, task) == {1: 2, 2: 1}
    assert label_numbers({"background": 0, "a": [1], "b": [2]}, task) is None


def test_names_that_differ_in_an_underscore_are_told_apart():
    alike = Task.model_validate(
        {
            "modalities": ["t_1", "t1"],
            "labels": {"a_1": 1, "a1": 2, "b": 3},
            "regions": {"b_1": ["a_1", "a1", "b"], "b1": ["a1", "b"], "b": ["b"]},
        }
    )
    for output in ("labels", "regions"):
        assert label_numbers(dataset_description(output, 1, alike)["labels"], alike) == {1: 1, 2: 2, 3: 3}
    assert modalities_of(["T_1", "T1"], alike) == [0, 1]


@pytest.fixture
def model_of(tmp_path):
    """The folder of a model that others trained, with these labels; its plans are all that is read of it."""

    def make(labels, **plans):
        dataset_json = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
        if any(isinstance(value, list) for value in labels.values()):
            own = {n for value in labels.values() for n in np.atleast_1d(value).tolist()}
            dataset_json["regions_class_order"] = sorted(own - {0})
        (tmp_path / "dataset.json").write_text(json.dumps(dataset_json))
        name = {"dataset_name": "Dataset003_Liver", "plans_name": "nnUNetPlans", "configurations": {}}
        (tmp_path / "plans.json").write_text(json.dumps(name | plans))  # in this order, as nnU-Net writes it
        return ModelFolder(tmp_path, "3d_fullres")

    return make


def test_a_model_of_another_organ_has_the_task_of_its_dataset_json(model_of):
    model = model_of({"background": 0, "liver": 1, "tumour": 2, "ignore": 3})
    assert model.task.name == "Dataset003_Liver"
    assert model.task.modalities == ("CT",)
    assert dict(model.task.numbers) == {"foreground": (1, 2), "liver": (1,), "tumour": (2,)}
    assert model.meaning == {1: 1, 2: 2}
    classes = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 3, 4)).transpose(3, 0, 1, 2)
    found = region_probabilities(classes, model.region_channels)
    np.testing.assert_allclose(found, [classes[1] + classes[2], classes[1], classes[2]], rtol=1e-5)
    assert model.outputs == Outputs.of(model.task, "labels")


def test_a_model_that_contradicts_its_own_settings_is_refused(model_of):
    settings = TrainerSettings(task=built_in("gli-2024")).into_plans({})
    with pytest.raises(ProblemsFound, match=r"gli-2024: 1 NETC, 2 SNFH, 3 ET, 4 RC"):
        _ = model_of({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, **settings).meaning


def test_the_main_region_of_a_model_with_its_own_numbers(model_of):
    """Moments of several passes see the model's own channels: those of WT, without the cavity."""
    model = model_of({"background": 0, "RC": 1, "SNFH": 2, "NETC": 3, "ET": 4})
    classes = np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 3)).transpose(2, 0, 1)
    moments = Moments(model.outputs)
    moments.add(torch.from_numpy(classes))
    np.testing.assert_allclose(moments.p_main, 1 - classes[0] - classes[1], atol=1e-6)
    np.testing.assert_allclose(region_probabilities(classes, model.region_channels)[0], moments.p_main, atol=1e-6)
    regions = model_of({"background": 0, "RC": [1], "TC": [3, 4], "ET": [4], "WT": [2, 3, 4]})
    moments = Moments(regions.outputs)
    moments.add(torch.from_numpy(classes[:4]))
    np.testing.assert_allclose(moments.p_main, classes[3], atol=1e-6)
    shown = region_probabilities(classes[:4], regions.region_channels)
    np.testing.assert_allclose(shown, classes[[3, 1, 2, 0]], rtol=1e-6)


def test_region_probabilities():
    random = np.random.default_rng(0)
    classes = random.dirichlet(np.ones(4), size=(2, 3, 4)).transpose(3, 0, 1, 2)
    meaning = {1: 2, 2: 1, 3: 3}  # ED, NCR, ET
    wt, tc, et = region_probabilities(classes, region_channels(paper_task(), meaning, ()))
    np.testing.assert_allclose(wt, 1 - classes[0], rtol=1e-5)
    np.testing.assert_allclose(tc, classes[2] + classes[3], rtol=1e-5)
    np.testing.assert_allclose(et, classes[3], rtol=1e-5)
    # channels of regions, in a model's own order
    channels = region_channels(paper_task(), meaning, [(3,), (1, 2, 3), (2, 3)])
    np.testing.assert_allclose(region_probabilities(classes[1:], channels), classes[[2, 3, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("channels", "order"),
    [
        (["t1n", "t1c", "t2w", "t2f"], ["t1n", "t1c", "t2w", "t2f"]),
        (["FLAIR", "T1w", "t1gd", "T2w"], ["t2f", "t1n", "t1c", "t2w"]),  # Decathlon
        (["T2-FLAIR", "T1", "T1-Gd", "T2"], ["t2f", "t1n", "t1c", "t2w"]),
        (["0", "1", "2", "3"], ["t1n", "t1c", "t2w", "t2f"]),
    ],
)
def test_images_come_in_the_models_order(tmp_path, channels, order):
    write_phantoms(tmp_path, cases=1, size=24, seed=0, task=paper_task())
    scan = find_inputs(tmp_path, {"channel_names": dict(enumerate(channels))}, task=paper_task())
    (case,) = scan.cases
    assert scan.problems == []
    assert [image.name.removesuffix(".nii.gz").rpartition("-")[2] for image in case.images] == order


@pytest.mark.parametrize("channels", [["FLAIR", "T1", "T1gd", "ADC"], ["T1", "T2"], ["T1", "T1", "T2", "FLAIR"]])
def test_channels_other_than_brats_are_refused(tmp_path, channels):
    write_phantoms(tmp_path, cases=1, size=24, seed=0, task=paper_task())
    with pytest.raises(ProblemsFound, match="CASE_0000"):
        find_inputs(tmp_path, {"channel_names": dict(enumerate(channels))}, task=paper_task())


def test_reader_that_reorients_images_is_refused(tmp_path: Path):
    fold = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    (fold.parent / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient"}')
    with pytest.raises(ProblemsFound, match="mirrored"):
        open_model_folder(fold.parent)
