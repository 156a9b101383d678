"""Models of BraTS that others trained: their labels, regions and channels."""

from pathlib import Path

import numpy as np
import pytest

from uncseg.dataset.inputs import find_inputs
from uncseg.dataset.phantom import write_phantoms
from uncseg.errors import ProblemsFound
from uncseg.method.inference.label_meaning import as_brats, brats_labels, region_probabilities
from uncseg.method.inference.model_folder import open_model_folder


@pytest.mark.parametrize(
    ("labels", "meaning"),
    [
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, {1: 1, 2: 2, 3: 3}),
        # Medical Segmentation Decathlon, Task01
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, {1: 2, 2: 1, 3: 3}),
        # the challenge's own names since 2024
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3}, {1: 1, 2: 2, 3: 3}),
        # nnU-Net's conversion of BraTS 2021, with regions
        (
            {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
            {1: 2, 2: 1, 3: 3},
        ),
        ({"background": 0, "wt": [1, 2, 3], "tc": [1, 3], "et": 3, "ignore": 4}, {1: 1, 2: 2, 3: 3}),
    ],
)
def test_labels_are_found_by_their_usual_names(labels, meaning):
    assert brats_labels({"labels": labels}, "model") == meaning
    own = np.array([0, *meaning])
    np.testing.assert_array_equal(as_brats(own, meaning), [0, *meaning.values()])


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "liver": 1, "tumour": 2},
        {"background": 0, "NCR": 1, "ED": 2, "ET": 3, "RC": 4},
        {"background": 0, "a": [1, 2, 3], "b": [1, 2], "c": [3]},
    ],
)
def test_labels_other_than_brats_are_refused(labels):
    with pytest.raises(ProblemsFound, match="NCR, ED and ET"):
        brats_labels({"labels": labels}, "model")


def test_region_probabilities():
    random = np.random.default_rng(0)
    classes = random.dirichlet(np.ones(4), size=(2, 3, 4)).transpose(3, 0, 1, 2)
    wt, tc, et = region_probabilities(classes, [1, 2, 3], {1: 2, 2: 1, 3: 3})  # ED, NCR, ET
    np.testing.assert_allclose(wt, 1 - classes[0], rtol=1e-5)
    np.testing.assert_allclose(tc, classes[2] + classes[3], rtol=1e-5)
    np.testing.assert_allclose(et, classes[3], rtol=1e-5)
    # channels of regions, in a model's own order
    shown = region_probabilities(classes[1:], [(3,), (1, 2, 3), (2, 3)], {1: 2, 2: 1, 3: 3})
    np.testing.assert_allclose(shown, classes[[2, 3, 1]], rtol=1e-6)


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
    write_phantoms(tmp_path, cases=1, size=24, seed=0)
    scan = find_inputs(tmp_path, {"channel_names": dict(enumerate(channels))})
    (case,) = scan.cases
    assert scan.problems == []
    assert [image.name.removesuffix(".nii.gz").rpartition("-")[2] for image in case.images] == order


@pytest.mark.parametrize("channels", [["FLAIR", "T1", "T1gd", "ADC"], ["T1", "T2"], ["T1", "T1", "T2", "FLAIR"]])
def test_channels_other_than_brats_are_refused(tmp_path, channels):
    write_phantoms(tmp_path, cases=1, size=24, seed=0)
    with pytest.raises(ProblemsFound, match="CASE_0000"):
        find_inputs(tmp_path, {"channel_names": dict(enumerate(channels))})


def test_reader_that_reorients_images_is_refused(tmp_path: Path):
    fold = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    (fold.parent / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient"}')
    with pytest.raises(ProblemsFound, match="mirrored"):
        open_model_folder(fold.parent)
