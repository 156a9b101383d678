"""``uncseg score`` by task: which labels, regions and lesions are scored, how the task is known, what is refused."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from support.commands import uncseg
from uncseg.console import console

pytestmark = pytest.mark.usefixtures("local_ray")
LIVER = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "numTraining": 1}
PROSTATE = {"name": "prostate", "modalities": ["t2", "adc"], "labels": {"gland": 1}}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console, "width", 2000)


def save(folder, name, array):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")


def lesions(found):
    """Two lesions of 100 and 70 mm³, 4 voxels apart, and one of 3 mm³; the one of 70 mm³ is missed."""
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[5:10, 5:10, 5:9] = mask[30, 30, 30:33] = 3
    if not found:
        mask[14:16, 5:10, 5:12] = 3
    return mask


def blocks(*labels):
    """One block of 4³ voxels per label, side by side along the last axis."""
    mask = np.zeros((12, 12, 4 * len(labels) + 8), np.uint8)
    for place, label in enumerate(labels):
        mask[4:8, 4:8, 4 + 4 * place : 8 + 4 * place] = label
    return mask


def score(root, *options, code=0, predictions="p", references="r"):
    """Return the command's output, and its scores by case and region."""
    out = root / "scores.parquet"
    output = uncseg("score", root / predictions, root / references, "--out", out, *options, code=code)
    return output, pd.read_parquet(out).set_index(["case", "region"]) if out.exists() else None


def pair(root, case):
    save(root / "r", case, lesions(found=False))
    save(root / "p", case, lesions(found=True))


@pytest.mark.parametrize(
    ("case", "task", "rule", "dice", "missed"),
    [
        ("BraTS-GLI-00001-000", "gli-2023", "more than 50 mm³, 3 dilations", 20 / 27, 0),
        ("BraTS-MEN-00001-000", "men", "more than 50 mm³, 1 dilation ", 1 / 2, 1),
        ("BraTS-MET-00001-000", "met", "more than 2 mm³, 1 dilation ", 2 / 3, 1),
    ],
)
def test_names_tell_the_rule_of_lesions(tmp_path, case, task, rule, dice, missed):
    pair(tmp_path, case)
    output, scores = score(tmp_path)
    assert f"task {task}: lesions of {rule}" in output
    assert "by the names of the cases" in output
    for region in ("WT", "TC", "ET"):
        assert scores.loc[(case, region), "lesionwise_dice"] == pytest.approx(dice)
        assert scores.loc[(case, region), "num_fn"] == missed


def test_an_option_tells_the_rule_and_what_was_kept_under_another_is_scored_again(tmp_path):
    pair(tmp_path, "patient1")
    for task, dice in (("gli-2023", 20 / 27), ("met", 2 / 3), ("gli-2023", 20 / 27)):
        output, scores = score(tmp_path, *(() if task == "gli-2023" else ("--task", task)))
        assert scores.loc[("patient1", "WT"), "lesionwise_dice"] == pytest.approx(dice)
        assert f"task {task}:" in output
        # the task lies beside the scores, in the form in which it can be given again
        assert yaml.safe_load((tmp_path / "scores_task.yaml").read_text())["name"] == task
    assert score(tmp_path, "--task", tmp_path / "scores_task.yaml")[1].equals(scores)


@pytest.mark.parametrize(
    ("case", "task", "advice"),
    [
        ("BraTS-MET-00001-000", "gli-2023", "set --task to met"),
        ("BraTS-MEN-00001-000", "met", "set --task to men"),
        ("BraTS-GLI-02062-100", "gli-2023", "set --task to gli-2024"),
        ("BraTS-PED-00001-000", None, "set --task to ped-2023 or ped-2024"),
        ("BraTS-PED-00001-000", "gli-2023", "set --task to ped-2023 or ped-2024"),
        ("patient1", "glioma", "one of gli-2018"),
    ],
)
def test_a_task_that_names_contradict_is_refused(tmp_path, case, task, advice):
    pair(tmp_path, case)
    output, scores = score(tmp_path, *(("--task", task) if task else ()), code=2)
    assert advice in output
    assert scores is None


def test_cases_of_two_tasks_are_refused(tmp_path):
    for case in ("BraTS-GLI-00001-000", "BraTS-MET-00001-000"):
        pair(tmp_path, case)
    output, scores = score(tmp_path, code=2)
    assert "BraTS-GLI-00001-000" in output
    assert "BraTS-MET-00001-000" in output
    assert scores is None


def test_post_treatment_gliomas_have_a_fourth_region_and_label(tmp_path):
    case = "BraTS-GLI-02062-100"
    save(tmp_path / "r" / case, f"{case}-seg", blocks(1, 2, 3, 4))
    save(tmp_path / "p", case, blocks(1, 2, 3, 2))
    output, scores = score(tmp_path)
    assert "4 RC" in output
    assert scores.loc[(case, "RC"), "dice"] == 0
    assert scores.loc[(case, "WT"), "dice"] == pytest.approx(2 * 3 / (3 + 4))  # blocks of 64 voxels
    assert scores.loc[(case, "ET"), "dice"] == 1
    # the same masks under a name of 2023: 4 is no label there, and none is guessed
    for folder in ("r", "p"):
        save(tmp_path / "other" / folder, "BraTS-GLI-00001-000", blocks(1, 2, 3, 4))
    output, none = score(tmp_path / "other", code=1)
    assert "label 4" in output
    assert none is None


def test_paediatric_label_1_is_enhancing_tumour_in_2024_alone(tmp_path):
    case = "BraTS-PED-00001-000"
    save(tmp_path / "r", case, blocks(1, 2, 3))
    save(tmp_path / "p", case, blocks(1, 3, 2))
    _, scores = score(tmp_path, "--task", "ped-2024")
    assert scores.loc[(case, "ET"), "dice"] == 1  # 1
    assert scores.loc[(case, "TC"), "dice"] == 1  # 1, 2 and 3
    _, scores = score(tmp_path, "--task", "ped-2023")
    assert scores.loc[(case, "ET"), "dice"] == 0  # 3
    assert scores.loc[(case, "TC"), "dice"] == pytest.approx(2 / 4)  # 1 and 3


def test_a_task_of_ones_own_is_one_file(tmp_path):
    for folder in ("r", "p"):
        save(tmp_path / folder, "patient1", blocks(1))
    save(tmp_path / "p", "patient1_gland", blocks(1))
    save(tmp_path / "u", "patient1_gland", np.full(blocks(1).shape, 0.25, np.float32))
    file = tmp_path / "prostate.yaml"
    file.write_text(yaml.safe_dump(PROSTATE))
    output, scores = score(tmp_path, "--task", file, "--uncertainty", tmp_path / "u")
    assert list(scores.index) == [("patient1", "gland")]
    assert scores["dice"].tolist() == [1]
    assert scores["mean_uncertainty"].tolist() == pytest.approx([0.25])
    assert "task prostate" in output
    assert "patient1_gland.nii.gz" in output  # beside the prediction it is a map, and no mask


def test_a_convention_of_ones_own_says_what_values_mean(tmp_path):
    own = {
        "modalities": ["ct"],
        "labels": {"liver": 1, "tumour": 2},
        "conventions": {
            "new": {"images": {"ct": "-ct"}},
            "old": {"images": {"ct": "_ct"}, "mask": "_label", "values": {"liver": 100, "tumour": 200}},
        },
    }
    (tmp_path / "liver.yaml").write_text(yaml.safe_dump(own))
    save(tmp_path / "p", "a", blocks(1, 2))
    save(tmp_path / "r", "a", blocks(100, 200))
    task = ("--task", tmp_path / "liver.yaml")
    output, none = score(tmp_path, *task, code=1)
    assert "set --reference-convention to old" in output
    assert none is None
    _, scores = score(tmp_path, *task, "--reference-convention", "old")
    assert scores["dice"].tolist() == [1, 1, 1]
    output, _ = score(tmp_path, *task, "--reference-convention", "2018", code=2)
    assert "new" in output
    assert "old" in output


def dataset(root, content):
    """A raw dataset of nnU-Net's."""
    save(root / "imagesTr", "a_0000", np.ones(blocks(1, 2).shape, np.float32))
    save(root / "labelsTr", "a", blocks(1, 2))
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("references", ["Dataset003_Liver", "Dataset003_Liver/labelsTr"])
def test_a_dataset_of_nnunets_is_taken_as_it_is(tmp_path, references):
    dataset(tmp_path / "Dataset003_Liver", LIVER)
    save(tmp_path / "p", "a", blocks(1, 1))
    output, scores = score(tmp_path, references=references)
    assert "task Dataset003_Liver" in output
    assert "1 liver, 2 tumour" in output
    assert scores["dice"].to_dict() == pytest.approx(
        {("a", "foreground"): 1, ("a", "liver"): 2 / 3, ("a", "tumour"): 0}
    )


def test_brain_tumours_of_nnunets_keep_their_own_numbers_if_all_masks_have_them(tmp_path):
    labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
    content = {"channel_names": {"0": "T1"}, "labels": labels}
    dataset(tmp_path / "Dataset137_BraTS", content)
    save(tmp_path / "p", "a", blocks(1, 3))
    output, scores = score(tmp_path, references="Dataset137_BraTS")
    assert scores["dice"].to_dict() == pytest.approx(
        {("a", "whole_tumor"): 1, ("a", "tumor_core"): 1, ("a", "enhancing_tumor"): 0}
    )
    # under the paper's task 1 would be the core: refused, because dataset.json says what it is
    output, _ = score(tmp_path, "--task", "gli-2023", references="Dataset137_BraTS", code=1)
    assert "1 ED, 2 NCR, 3 ET" in output


def test_masks_of_two_meanings_are_refused(tmp_path):
    dataset(tmp_path / "Dataset003_Liver", LIVER)
    save(tmp_path / "p", "a", blocks(1, 1))
    (tmp_path / "p" / "dataset.json").write_text(json.dumps(LIVER | {"labels": {"background": 0, "spleen": 1}}))
    output, scores = score(tmp_path, references="Dataset003_Liver", code=1)
    assert "1 spleen" in output
    assert "1 liver, 2 tumour" in output
    assert scores is None


@pytest.mark.parametrize("ending", ["_gt", "_seg"])
def test_each_ending_of_a_task_of_ones_own_tells_its_convention(tmp_path, ending):
    """Masks of two hospitals that number the same labels the other way round."""
    images = {
        "first": {"images": {"t2": "_t2"}, "mask": "_contour"},
        "second": {"images": {"t2": "_b"}, "mask": ending},
    }
    images["second"]["values"] = {"a": 2, "b": 1}
    own = {"modalities": ["t2"], "labels": {"a": 1, "b": 2}, "conventions": images}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    save(tmp_path / "r", f"anna{ending}", blocks(2, 1))
    save(tmp_path / "p", "anna", blocks(1, 2))
    said, found = score(tmp_path, "--task", tmp_path / "own.yaml")
    assert "REFERENCES: labels of task own: 2 a, 1 b (by the names of the files)" in said
    assert "PREDICTIONS: labels of task own: 1 a, 2 b (no name tells another)" in said
    assert list(found["dice"]) == [1, 1, 1]
