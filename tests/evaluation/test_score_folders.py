"""What ``uncseg score`` takes the files of a folder for, by command: no mask and no map is left out in silence."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from support.commands import uncseg
from uncseg.console import console

pytestmark = pytest.mark.usefixtures("local_ray")
SHAPE = (16, 16, 16)
NNUNET = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
DECATHLON = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console, "width", 2000)


def mask():
    array = np.zeros(SHAPE, np.uint8)
    array[3:12, 3:12, 3:12], array[4:9, 4:9, 4:9], array[5:7, 5:7, 5:7] = 2, 1, 3
    return array


def save(folder, *names, array=None, ending=".nii.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        nib.save(nib.Nifti1Image(mask() if array is None else array, np.eye(4)), folder / f"{name}{ending}")


def score(root, *options, code=0):
    """The output of the command on the folders p and r, and the scored cases."""
    out = root / "scores.parquet"
    output = uncseg("score", root / "p", root / "r", "--out", out, *options, code=code)
    return output, pd.read_parquet(out)["case"].unique().tolist() if out.exists() else []


def line(output, *words):
    """Check that one line of the output holds all of the words."""
    assert any(all(word in text for word in words) for text in output.splitlines()), output


def test_masks_of_two_points_in_time_are_no_images(tmp_path):
    for side in ("p", "r"):
        save(tmp_path / side, "patient1_t1", "patient1_t2", "patient2")
    output, cases = score(tmp_path)
    assert cases == ["patient1_t1", "patient1_t2", "patient2"]
    assert "BraTS 2023" in output


@pytest.mark.parametrize("folder", ["r/patient1", "r"])
def test_images_beside_a_reference_are_no_masks(tmp_path, folder):
    save(tmp_path / "p", "patient1")
    save(tmp_path / folder, *(f"patient1_{role}" for role in ("t1", "t1ce", "t2", "flair", "seg")))
    assert score(tmp_path, "--reference-convention", "2023")[1] == ["patient1"]


def test_a_case_in_a_folder_is_named_as_check_names_it(tmp_path):
    roles = ("t1n", "t1c", "t2w", "t2f", "seg")
    save(tmp_path / "p", "BraTS-GLI-00000-000", "BraTS-GLI-00001-000")
    save(tmp_path / "r" / "BraTS-GLI-00000-000", *(f"brats-gli-00000-000-{role}" for role in roles), ending=".NII.GZ")
    save(tmp_path / "r" / "BraTS-GLI-00001-000", *(f"BraTS-GLI-00001-000-{role}" for role in roles))
    for folder in (tmp_path / "r").iterdir():
        save(folder, "brain_mask", f"{folder.name}brain", "other_seg", "other_t1")
    output, cases = score(tmp_path)
    assert cases == ["BraTS-GLI-00000-000", "BraTS-GLI-00001-000"]
    line(output, "REFERENCES", "8 other files", "brain_mask.nii.gz", "not taken")


@pytest.mark.parametrize("names", [("A", "A_et"), ("A-seg", "A_2")])
def test_files_that_look_like_maps_or_images_of_a_case_are_named(tmp_path, names):
    for side in ("p", "r"):
        save(tmp_path / side, *names)
    output, cases = score(tmp_path)
    assert cases == ["A"]
    for side in ("PREDICTIONS", "REFERENCES"):
        line(output, side, f"{names[1]}.nii.gz", "not taken")


def half(folder, *names, **more):
    save(folder, *names, array=np.full(SHAPE, 0.5, np.float32), **more)


def test_a_map_that_some_cases_lack_is_named(tmp_path):
    for side in ("p", "r"):
        save(tmp_path / side, "A", "B")
    half(tmp_path / "u", *(f"{case}_{region}" for case in "AB" for region in ("wt", "tc", "et")))
    (tmp_path / "u" / "B_et.nii.gz").unlink()
    output, cases = score(tmp_path, "--uncertainty", tmp_path / "u", code=1)
    line(output, "B: uncertainty", "ET")
    assert cases == ["A"]


def test_maps_of_one_region_are_enough_where_all_cases_have_them(tmp_path):
    for side in ("p", "r"):
        save(tmp_path / side, "A", "B")
    half(tmp_path / "u", "A_wt", "B_WT")
    assert score(tmp_path, "--uncertainty", tmp_path / "u")[1] == ["A", "B"]


def test_a_map_that_is_there_twice_is_refused(tmp_path):
    for side in ("p", "r"):
        save(tmp_path / side, "A")
    half(tmp_path / "u", "A_uncertainty")
    half(tmp_path / "u", "A_uncertainty", ending=".nii")
    line(score(tmp_path, "--uncertainty", tmp_path / "u", code=1)[0], "A_uncertainty.nii and A_uncertainty.nii.gz")


@pytest.mark.parametrize(
    ("outside", "inside", "found"),
    [(np.nan, 1, "NaN"), (0, 0, "0 everywhere"), (-1024, 300, "-1024"), (0, 300, None), (1, 1, None)],
)
def test_a_brain_mask_that_tells_no_brain_is_refused(tmp_path, outside, inside, found):
    for side in ("p", "r"):
        save(tmp_path / side, "A")
    save(tmp_path / "b", "A", array=np.where(mask() > 0, inside, outside).astype(np.float32))
    half(tmp_path / "u", "A")
    options = ("--uncertainty", tmp_path / "u", "--brain", tmp_path / "b")
    output, cases = score(tmp_path, *options, code=1 if found else 0)
    if found:
        line(output, "A.nii.gz", found)
    assert cases == ([] if found else ["A"])


@pytest.mark.parametrize("labels", [NNUNET, DECATHLON])
@pytest.mark.parametrize("place", ["p", "r"])
def test_masks_that_number_oedema_1_are_refused_where_dataset_json_says_so(tmp_path, labels, place):
    for side in ("p", "r"):
        save(tmp_path / side, "A")
    (tmp_path / place / "dataset.json").write_text(json.dumps({"labels": labels}))
    output, cases = score(tmp_path, code=1)
    line(output, "dataset.json", "1 ED, 2 NCR, 3 ET")
    assert not cases
    option = {"p": "--prediction-convention", "r": "--reference-convention"}[place]
    assert option in output
    assert score(tmp_path, option, "2023")[1] == ["A"]


def test_the_dataset_json_of_a_dataset_lies_above_its_masks(tmp_path):
    save(tmp_path / "p", "A")
    save(tmp_path / "Dataset137_BraTS" / "labelsTr", "A")
    (tmp_path / "r").symlink_to(tmp_path / "Dataset137_BraTS" / "labelsTr")
    file = tmp_path / "Dataset137_BraTS" / "dataset.json"
    file.write_text(json.dumps({"labels": NNUNET}))
    line(score(tmp_path, code=1)[0], "dataset.json", "1 ED, 2 NCR")
    file.write_text(json.dumps({"labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3}}))
    output, cases = score(tmp_path)
    line(output, "REFERENCES", "by dataset.json")
    assert cases == ["A"]


def test_a_name_may_be_as_long_as_a_folder_allows(tmp_path):
    for side in ("p", "r"):
        save(tmp_path / side, "x" * 248)
    assert score(tmp_path)[1] == ["x" * 248]
