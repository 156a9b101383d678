"""``uncseg predict`` and ``evaluate``: sources of models, kinds of input, records, other cohorts, two runs compared."""

import contextlib
import copy
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
import yaml
from mlflow import MlflowClient
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from support.commands import assert_same_geometry, start_uncseg, uncseg
from support.light_commands import has_words, light_commands
from uncseg.console import console
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json
from uncseg.layout import PreparedFolder
from uncseg.table_files import write_table
from uncseg.tasks.built_in_tasks import built_in, paper_task

CHANNELS = ("t1n", "t1c", "t2w", "t2f")


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.fixture(scope="module")
def both(root, run):
    """The folder of the cohort's predictions by both folds together, with every file that can be written."""
    out = root / "both"
    uncseg("predict", run.root, root / "cohort", out, "--probabilities", "--overlays")
    return out


@pytest.fixture(scope="module")
def alone(root, run):
    """The folders of the cohort's predictions by each fold alone."""
    for fold in (0, 1):
        uncseg("predict", run.root, root / "cohort", root / f"fold{fold}", "--folds", fold)
    return [root / "fold0", root / "fold1"]


def cases(root):
    return sorted(path.name for path in (root / "cohort").iterdir() if path.is_dir())


def auroc_band(root, out, case, name):
    """Return how well a written map ranks wrong WT voxels within two steps of the predicted border."""
    predicted = voxels(out / f"{case}.nii.gz") > 0
    wrong = predicted != (voxels(root / "cohort" / case / f"{case}-seg.nii.gz") > 0)
    cube = np.ones((3, 3, 3))
    band = ndimage.binary_dilation(predicted, cube, 2) & ~ndimage.binary_erosion(predicted, cube, 2, border_value=1)
    return roc_auc_score(wrong[band], voxels(out / f"{case}_{name}.nii.gz")[band])


def assert_same(one, other, case):
    for file in (f"{case}.nii.gz", f"{case}_uncertainty.nii.gz"):
        np.testing.assert_array_equal(voxels(one / file), voxels(other / file))


def test_a_fold_and_a_model_folder_predict_as_the_run(root, run, alone, tmp_path):
    uncseg("predict", run.fold(0), root / "cohort", tmp_path / "fold")
    elsewhere = shutil.copytree(run.model, tmp_path / "model")  # nothing in its name or beside it says what it is
    uncseg("predict", elsewhere, root / "cohort", tmp_path / "folder", "--folds", 0)
    for case in cases(root):
        assert_same(alone[0], tmp_path / "fold", case)
        assert_same(alone[0], tmp_path / "folder", case)


def test_a_model_in_mlflow_predicts_as_the_run(root, run, alone, tmp_path, monkeypatch):
    address = f"sqlite:///{root}/runs/mlflow.db"
    client = MlflowClient(address)
    (experiment,) = [found for found in client.search_experiments() if found.name == "uncseg"]
    (model,) = client.search_logged_models([experiment.experiment_id])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    uncseg("predict", f"models:/{model.model_id}", root / "cohort", tmp_path / "out", "--folds", 0)
    for case in cases(root):
        assert_same(alone[0], tmp_path / "out", case)


def test_nnunets_input_files_and_a_single_case_are_inputs(root, run, alone, tmp_path):
    first = cases(root)[0]
    for number, channel in enumerate(CHANNELS):
        target = tmp_path / "images" / f"{first}_{number:04d}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(root / "cohort" / first / f"{first}-{channel}.nii.gz")
    (tmp_path / "images" / "incomplete_0000.nii.gz").symlink_to(target)
    uncseg("predict", run.root, tmp_path / "images", tmp_path / "plain", "--folds", 0, code=1)
    uncseg("predict", run.root, root / "cohort" / first, tmp_path / "single", "--folds", 0)
    assert_same(alone[0], tmp_path / "plain", first)
    assert_same(alone[0], tmp_path / "single", first)
    assert [file.stem for file in (tmp_path / "plain").glob("*.json")] == [first]


def test_folds_together_are_their_mean(root, both, alone):
    for case in cases(root):
        labels, wt, tc, et, spread = (
            voxels(both / f"{case}{name}.nii.gz")
            for name in ("", "_wt_probability", "_tc_probability", "_et_probability", "_between_folds")
        )
        # argmax over background, NCR, ED, ET
        classes = np.stack([1 - wt, tc - et, wt - tc, et])
        ordered = np.sort(classes, axis=0)
        clear = ordered[-1] - ordered[-2] > 1e-5
        np.testing.assert_array_equal(labels[clear], classes.argmax(0)[clear])
        one, two, mean = (voxels(folder / f"{case}_uncertainty.nii.gz") for folder in (*alone, both))
        inside = (one > 0) & (two > 0) & (mean > 0)
        assert inside.any()
        np.testing.assert_allclose(mean[inside], (one[inside] + two[inside]) / 2, atol=1e-5)
        assert_same_geometry(both / f"{case}_uncertainty.nii.gz", sitk.ReadImage(str(both / f"{case}.nii.gz")))
        assert spread.dtype == np.float32
        assert 0 < spread.max() <= 0.5
        # two folds lie the same distance from their mean, so none of them leaves [0, 1]
        assert (wt - spread >= -1e-5).all()
        assert (wt + spread <= 1 + 1e-5).all()
        assert (both / f"{case}.png").stat().st_size > 5000


def test_a_prediction_says_volumes_and_expected_errors(root, both):
    for case in cases(root):
        record = read_json(both / f"{case}.json")
        image = sitk.ReadImage(str(both / f"{case}.nii.gz"))
        labels, u = voxels(both / f"{case}.nii.gz"), voxels(both / f"{case}_uncertainty.nii.gz")
        ml = np.prod(image.GetSpacing()) / 1000
        for region, members in (("wt", (1, 2, 3)), ("tc", (1, 3)), ("et", (3,))):
            assert record[f"volume_{region}_ml"] == pytest.approx(np.isin(labels, members).sum() * ml)
        around = ndimage.binary_dilation(labels > 0, np.ones((3, 3, 3)), iterations=2)
        assert u.dtype == np.float32
        assert (u[~around] == 0).all()
        assert 0 <= u.min() <= u.max() <= 1
        assert record["mean_uncertainty"] == pytest.approx(u[around].mean(), rel=1e-4)
        assert record["expected_wrong_voxels"] == pytest.approx(u.sum(), rel=1e-4)
        assert record["total_uncertainty_ml"] == pytest.approx(u.sum() * ml, rel=1e-4)
        wrong_inside, missing = u[labels > 0].sum(), u[labels == 0].sum()
        right = (labels > 0).sum() - wrong_inside
        assert record["expected_dice_wt"] == pytest.approx(2 * right / (2 * right + wrong_inside + missing), rel=1e-4)
        assert record["review"] == (record["review_reason"] is not None)
        assert record["folds"] == [0, 1]


def test_chosen_estimators_write_their_maps_and_leave_the_labels_alone(root, run, alone, tmp_path):
    case = cases(root)[0]
    few = ("--set", "evaluation.estimators.augmentation={samples: 2, noise_sd: 0}", "--folds", 0)
    one_pass = ("--set", "evaluation.estimators.one_pass=[var1shot, entropy, one_minus_p, one_minus_max]")
    more = (*few, *one_pass, "--probabilities")
    uncseg("predict", run.root, root / "cohort" / case, tmp_path / "out", *more)
    assert_same(tmp_path / "out", alone[0], case)
    # two passes: the case as it is, and mirrored along its first axis
    variance = voxels(tmp_path / "out" / f"{case}_augmentation_variance.nii.gz")
    entropy = voxels(tmp_path / "out" / f"{case}_augmentation_entropy.nii.gz")
    total = voxels(tmp_path / "out" / f"{case}_augmentation_total.nii.gz")
    assert 0 <= variance.min() < variance.max() <= 1
    assert (variance <= total + 1e-5).all(), "the spread is a part of the whole"
    assert entropy.max() <= 1 + 1e-6
    p = voxels(tmp_path / "out" / f"{case}_wt_probability.nii.gz").astype(float).clip(0, 1)
    bits = -sum(np.where(q > 0, q * np.log2(np.where(q > 0, q, 1)), 0) for q in (p, 1 - p))
    for name, expected in {"var1shot": 4 * p * (1 - p), "entropy": bits, "one_minus_p": 1 - p}.items():
        np.testing.assert_allclose(voxels(tmp_path / "out" / f"{case}_{name}.nii.gz"), expected, atol=1e-5)
    labels, doubt = (voxels(tmp_path / "out" / f"{case}{end}.nii.gz") for end in ("", "_one_minus_max"))
    # four classes: the decision has a quarter at least, and background's probability where it was taken
    assert 0 <= doubt.min() < doubt.max() <= 0.75 + 1e-6
    np.testing.assert_allclose(doubt[labels == 0], p[labels == 0], atol=1e-5)
    image = sitk.ReadImage(str(root / "cohort" / case / f"{case}-t2f.nii.gz"))
    assert_same_geometry(tmp_path / "out" / f"{case}_augmentation_entropy.nii.gz", image)


def test_review_by_the_runs_own_cases_or_by_a_given_bound(root, run, both, tmp_path):
    own = pd.read_parquet(run.tables / "per_case.parquet")["expected_dice_wt"].quantile(0.2)
    for case in cases(root):
        record = read_json(both / f"{case}.json")
        assert record["review"] == (record["expected_dice_wt"] < own)
        assert record["review_below"] == pytest.approx(own)
    said = uncseg("predict", run.root, root / "cohort", tmp_path / "out", "--review-below", 1)
    assert all(read_json(tmp_path / "out" / f"{case}.json")["review"] for case in cases(root))
    assert said.count("is below 1.000") == len(cases(root))


def test_another_cohort_is_scored_by_each_fold_and_by_all(root, run, both, alone, tmp_path):
    said = uncseg("evaluate", run.root, "--dataset", root / "cohort")
    assert "Spearman" in said
    assert "flagged for review" in said
    folds = pd.read_parquet(run.tables / "external_cohort_folds.parquet").set_index(["model", "region", "figure"])
    for model, predictions in (("fold_0", alone[0]), ("fold_1", alone[1]), ("mean", both)):
        # the same by the way of a stranger's files
        out = tmp_path / model / "scores.parquet"
        options = ("--uncertainty", predictions, "--brain", root / "cohort")
        uncseg("score", predictions, root / "cohort", "--out", out, *options)
        means = pd.read_parquet(out).groupby("region").mean(numeric_only=True)
        for region in ("WT", "TC", "ET"):
            for figure in ("dice", "hd95_mm", "lesionwise_dice", "qu_score", "ece"):
                assert folds.loc[(model, region, figure), "mean"] == pytest.approx(means.loc[region, figure], abs=1e-5)
    write_phantoms(tmp_path / "elsewhere" / "cohort", cases=3, size=28, seed=8, task=built_in("gli-2023"))
    uncseg("evaluate", run.root, "--dataset", tmp_path / "elsewhere" / "cohort", code=2)
    listed = pd.read_parquet(run.tables / "external_cohort_cases.parquet")
    assert listed["case"].tolist() == cases(root)
    assert listed["expected_dice_wt"].between(0, 1).all()


def test_another_cohort_is_scored_by_its_own_rule_of_lesions(root, run, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "width", 600)
    metastases = tmp_path / "metastases"
    write_phantoms(metastases, cases=2, size=32, seed=5, task=built_in("met"))
    said = uncseg("evaluate", run.root, "--dataset", metastases)
    assert "task met: lesions of more than 2 mm³, 1 dilation (by the names of the cases)" in said
    out = tmp_path / "scores.parquet"
    uncseg("score", run.root / "external" / "metastases", metastases, "--out", out)
    columns = ["case", "region", "lesionwise_dice", "num_tp", "num_fp", "num_fn"]
    tables = (pd.read_parquet(file)[columns] for file in (run.tables / "external_metastases.parquet", out))
    own, files = (table.sort_values(columns[:2], ignore_index=True) for table in tables)
    pd.testing.assert_frame_equal(own, files)
    # the rule is another one, if it is said
    fine = {**built_in("met").model_dump(mode="json"), "name": "fine", "lesions": {"dilations": 0, "smallest_mm3": 0}}
    (tmp_path / "fine.yaml").write_text(yaml.safe_dump(fine, sort_keys=False))
    said = uncseg("evaluate", run.root, "--dataset", metastases, "--task", tmp_path / "fine.yaml")
    assert "task fine: lesions of more than 0 mm³, no dilations (as set)" in said
    finer = pd.read_parquet(run.tables / "external_metastases.parquet")
    assert finer["num_tp"].sum() + finer["num_fn"].sum() > files["num_tp"].sum() + files["num_fn"].sum()


def test_names_of_another_task_than_the_models_are_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "width", 600)
    write_phantoms(tmp_path / "new", cases=1, size=28, seed=5, task=built_in("gli-2024"))
    said = uncseg("predict", run.root, tmp_path / "new", tmp_path / "out", "--folds", 0)
    assert "names of task gli-2024: 1 case, such as BraTS-GLI-" in said
    assert "the model was trained for gli-2023, and its labels are written" in said


@pytest.mark.parametrize(
    ("cohort", "task", "words"),
    [
        ("gli-2024", None, ("task gli-2024", "RC: RC", "model")),
        ("met", "gli-2023", ("set --task to met",)),
        ("gli-2023", "ped-2024", ("gli-2023",)),
    ],
)
def test_a_cohort_that_does_not_fit_the_model_is_refused(run, tmp_path, monkeypatch, cohort, task, words):
    monkeypatch.setattr(console, "width", 600)
    write_phantoms(tmp_path / "cohort", cases=1, size=24, seed=0, task=built_in(cohort))
    options = ("--task", task) if task else ()
    said = uncseg("evaluate", run.root, "--dataset", tmp_path / "cohort", *options, code=2)
    assert all(word in said for word in words)
    assert "--dataset" in uncseg("evaluate", run.root, "--task", "met", code=2)


def test_what_cannot_fit_a_cohort_is_refused_before_torch_is_imported(root, run, tmp_path):
    write_phantoms(tmp_path / "other", cases=1, size=24, seed=0, task=built_in("gli-2024"))
    lines = {
        ("evaluate", run.root, "--dataset", root / "cohort", "--convention", "1999"): "--convention",
        ("evaluate", run.root, "--dataset", tmp_path / "other"): "task gli-2024",
    }
    for said, (code, output, problems) in zip(lines.values(), light_commands(tmp_path, *lines), strict=True):
        assert (code, output) == (2, "")
        assert has_words(said, problems)


def test_who_is_a_patient_of_another_cohort_can_be_said(root, run, both, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "width", 600)
    uncseg("evaluate", run.root, "--dataset", root / "cohort")

    def patients():
        return set(pd.read_parquet(run.tables / "external_cohort.parquet")["patient"])

    assert patients() == {name.rpartition("-")[0] for name in cases(root)}
    said = uncseg("evaluate", run.root, "--dataset", root / "cohort", "--patients", "(BraTS-GLI)-")
    assert patients() == {"BraTS-GLI"}
    assert "patients: 1 patient, by the pattern (BraTS-GLI)-" in said
    (tmp_path / "patients.csv").write_text("case,patient\nother,anna\n")
    said = uncseg("evaluate", run.root, "--dataset", root / "cohort", "--patients", tmp_path / "patients.csv", code=2)
    assert f"no line for {cases(root)[0]}" in said
    assert "--dataset" in uncseg("evaluate", run.root, "--patients", "(BraTS-GLI)-", code=2)
    assert patients() == {"BraTS-GLI"}


def test_out_of_fold_scores_are_those_of_the_files(root, run, tmp_path):
    options = ("--uncertainty", run.out_of_fold, "--brain", root / "cases", "--out", tmp_path / "scores.parquet")
    uncseg("score", run.out_of_fold, root / "cases", *options)
    keys = ["case", "region"]
    files, own = (pd.read_parquet(file) for file in (tmp_path / "scores.parquet", run.tables / "scores.parquet"))
    assert set(own["fold"]) == {0, 1}
    pd.testing.assert_frame_equal(
        files.sort_values(keys, ignore_index=True),
        own.drop(columns="fold").sort_values(keys, ignore_index=True),
        rtol=1e-5,
    )
    table1 = pd.read_parquet(run.tables / "per_case.parquet").set_index("case")["dice_wt"]
    wt = own[own["region"] == "WT"].set_index("case")["dice"]
    pd.testing.assert_series_equal(table1, wt[table1.index], check_names=False)


def test_estimators_are_scored_on_another_cohort(root, run, alone, tmp_path):
    cohort = shutil.copytree(root / "cohort", tmp_path / "mirrored")
    few = ("--set", "evaluation.estimators.augmentation={samples: 2, noise_sd: 0}")
    one_pass = ("--set", "evaluation.estimators.one_pass=[var1shot, one_minus_max]")
    uncseg("evaluate", run.root, "--dataset", cohort, *few, *one_pass)
    means = pd.read_parquet(run.tables / "external_mirrored_folds.parquet").set_index(["model", "region", "figure"])[
        "mean"
    ]
    models = {"fold_0", "fold_1", "mean", *(f"augmentation_{part}" for part in ("total", "variance", "entropy"))}
    models |= {"var1shot", "one_minus_max"}
    assert set(means.index.get_level_values("model")) == models
    # maps as written, on the segmentation whose Dice all of them share
    case = cases(root)[0]
    entropy = voxels(run.root / "external" / "mirrored" / f"{case}_augmentation_entropy.nii.gz")
    assert 0 <= entropy.min() < entropy.max() <= 1
    dices = {part: means[f"augmentation_{part}", "WT", "dice"] for part in ("total", "variance", "entropy")}
    assert len(set(dices.values())) == 1
    assert means["var1shot", "WT", "dice"] == means["mean", "WT", "dice"], "a map of the folds' own segmentation"
    for name in ("var1shot", "one_minus_max"):
        expected = np.mean([auroc_band(root, run.root / "external" / "mirrored", case, name) for case in cases(root)])
        assert 0.5 < expected < 1
        assert means[name, "WT", "auroc_band"] == pytest.approx(expected)
    assert dices["total"] == pytest.approx(means["mean", "WT", "dice"], abs=0.1)
    assert means["augmentation_total", "WT", "qu_score"] != means["augmentation_variance", "WT", "qu_score"]


def test_two_runs_are_compared(root, run, monkeypatch):
    monkeypatch.setattr(console, "width", 300)
    second = root / "runs" / "second"
    uncseg("evaluate", run.root, second, code=2)
    uncseg("evaluate", run.root, run.root, code=2)
    shutil.copytree(run.root / "tables", second / "tables")
    shutil.copy(run.experiment, second / "experiment.yaml")
    scores = pd.read_parquet(run.tables / "scores.parquet")
    scores["dice"] += np.where(scores["region"] == "WT", 0.01, 0)
    scores = scores[scores["case"] != scores["case"].iloc[0]]
    write_table(scores, second / "tables", "scores")
    said = uncseg("evaluate", run.root, second)
    assert "1 cases of small" in said
    table = pd.read_parquet(run.tables / "difference_from_second.parquet").set_index(["region", "figure"])
    assert table.loc[("WT", "dice"), "difference"] == pytest.approx(0.01)
    assert table.loc[("WT", "dice"), "p_value"] == pytest.approx(2 / 2 ** scores["patient"].nunique())  # all one way
    assert table.loc[("TC", "dice"), ["difference", "p_value"]].tolist() == [0, 1]
    assert (table["cases"].loc["WT"] <= 5).all()


def test_a_model_that_nnunet_trained(root, run, tmp_path, monkeypatch):
    """It has no head, and its labels are in another order: labels equal nnU-Net's own; there is no map."""
    prepared = PreparedFolder(next((root / "runs").glob("prepared/*/prepared.json")).parent, "Dataset501_Small")
    for name, value in nnunet_environment(prepared, tmp_path / "results").items():
        monkeypatch.setenv(name, value)
    dataset_json = read_json(prepared.dataset / "dataset.json")
    dataset_json["labels"] = {"background": 0, "edema": 1, "non-enhancing": 2, "enhancing": 3}
    with contextlib.redirect_stdout(None):
        plans = copy.deepcopy(read_json(prepared.plans)) | {"continue_training": False}
        trainer = nnUNetTrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
        trainer.initialize()
        folder = Path(trainer.output_folder_base)
        (folder / "fold_0").mkdir(parents=True, exist_ok=True)
        for name, content in (("plans.json", plans), ("dataset.json", dataset_json)):
            (folder / name).write_text(json.dumps(content))
        trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    first = cases(root)[0]
    out = tmp_path / "out"
    one_pass = ("--set", "evaluation.estimators.one_pass=[one_minus_max, border_distance]")
    uncseg("predict", folder, root / "cohort" / first, out, *one_pass)
    theirs = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    with contextlib.redirect_stdout(None):
        theirs.initialize_from_trained_model_folder(str(folder), (0,))
        images = [str(root / "cohort" / first / f"{first}-{channel}.nii.gz") for channel in CHANNELS]
        data, properties = theirs.configuration_manager.preprocessor_class(verbose=False).run_case(
            images, None, theirs.plans_manager, theirs.configuration_manager, dataset_json
        )[::2]
        logits = theirs.predict_logits_from_preprocessed_data(torch.from_numpy(data[:]))
    expected = np.zeros(properties["shape_before_cropping"], int)
    box = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
    expected[box] = theirs.label_manager.convert_logits_to_segmentation(logits.float()).numpy()
    ours = voxels(out / f"{first}.nii.gz")
    swapped = np.array([0, 2, 1, 3])[expected]
    assert (ours == swapped).mean() > 0.9999
    doubt = np.zeros(ours.shape)
    doubt[box] = 1 - torch.softmax(logits.float(), 0).amax(0).numpy()
    np.testing.assert_allclose(voxels(out / f"{first}_one_minus_max.nii.gz"), doubt, atol=1e-4)
    eighths = 8 * voxels(out / f"{first}_border_distance.nii.gz")
    np.testing.assert_allclose(eighths, np.round(eighths), atol=1e-4)
    assert eighths.max() == pytest.approx(8 if ours.any() else 0, abs=1e-4)
    uncseg("predict", folder, root / "cohort" / first, out)
    assert not list(out.glob("*_one_minus_max.nii.gz")), "not asked for any more"
    assert sorted(file.name for file in out.glob("BraTS*")) == [f"{first}.json", f"{first}.nii.gz"]
    assert "expected_dice_wt" not in read_json(out / f"{first}.json")


def test_other_inputs_and_other_options_are_predicted_anew(root, run, tmp_path):
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    write_phantoms(cohort, cases=2, size=28, seed=5, task=paper_task())
    first, second = sorted(path.name for path in cohort.iterdir() if path.is_dir())
    (cohort / first / f"{first}-seg.nii.gz").write_bytes(b"not needed, and broken")
    uncseg("predict", run.root, cohort, out, "--probabilities")
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()}
    # a corrected image; a file that someone deleted
    image = cohort / second / f"{second}-t1c.nii.gz"
    image.write_bytes((cohort / second / f"{second}-t1n.nii.gz").read_bytes())
    (out / f"{first}_between_folds.nii.gz").unlink()
    uncseg("predict", run.root, cohort, out, "--probabilities")
    after = {file.name: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()}
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)
    # one fold: no spread, and no probabilities of both
    uncseg("predict", run.root, cohort, out, "--folds", 0)
    left = [f"{case}{name}" for case in (first, second) for name in (".json", ".nii.gz", "_uncertainty.nii.gz")]
    assert sorted(file.name for file in out.glob("BraTS*")) == sorted(left)
    listed = pd.read_csv(out / "predictions.csv")
    assert listed["case"].tolist() == [first, second]
    assert listed["expected_dice_wt"].between(0, 1).all()


@pytest.mark.slow
def test_a_killed_prediction_leaves_whole_files_and_goes_on(root, run, tmp_path):
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    write_phantoms(cohort, cases=12, size=28, seed=3, task=paper_task())
    command = start_uncseg("predict", run.root, cohort, out, log=tmp_path / "first.log")
    command.wait_until(lambda: len(list(out.glob("*.json"))) >= 3)
    command.kill_group()
    done = sorted(file.stem for file in out.glob("*.json"))
    assert 3 <= len(done) < 12
    for image in out.glob("[!.]*.nii.gz"):
        nib.load(image).get_fdata()  # raises where bytes are missing
    for case in done:
        assert {f"{case}.nii.gz", f"{case}_uncertainty.nii.gz"} <= {file.name for file in out.iterdir()}
    before = {file: file.stat().st_mtime_ns for case in done for file in out.glob(f"{case}*")}
    uncseg("predict", run.root, cohort, out)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(list(out.glob("*.json"))) == 12
    assert not list(out.glob(".part-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "cohort", "out"), "no folder"),
        (("cohort", "cohort", "out"), "a run (runs/NAME)"),
        (("runs/small", "cohort", "out", "--folds", "0,4"), "fold 4"),
        (("runs/small", "nowhere", "out"), "nowhere"),
        (("runs/small/folds", "cohort", "out"), "a folder without experiment.yaml"),
        (
            ("runs/small", "cohort", "out", "--set", "evaluation.estimators.mc_dropout.samples=5"),
            "`model.dropout` to 0.2",
        ),
        (("runs/small", "cohort", "out", "--set", "evaluation.estimators.deep_ensemble=true"), "training.members"),
        (("runs/small", "cohort", "out", "--set", "evaluation.estimators.one_pass=[entropie]"), "'entropy'"),
        (
            ("runs/small", "cohort", "out", "--set", "loss.unc_weight=0.2"),
            "of a trained run only evaluation, resources and dataset.path",
        ),
        (
            ("runs/small", "cohort", "out", "--mirroring", "--set", "evaluation.estimators.augmentation.samples=2"),
            "leave --mirroring out",
        ),
        (
            ("runs/small/model", "cohort", "out", "--set", "evaluation.estimators.heteroscedastic.samples=5"),
            "set `model.heteroscedastic` to true",
        ),
    ],
)
def test_wrong_requests_are_refused_by_name(root, arguments, said, monkeypatch):
    monkeypatch.setattr(console, "width", 1000)
    monkeypatch.chdir(root)
    model = next((root / "runs" / "small" / "folds").glob("*/*__*__*"))
    arguments = [str(model) if argument == "runs/small/model" else argument for argument in arguments]
    assert said in uncseg("predict", *arguments, code=2)
    assert not (root / "out").exists()
