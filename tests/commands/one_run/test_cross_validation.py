"""What a finished cross-validation leaves: tables, maps in native space, MLflow, a model for new cases."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from mlflow import MlflowClient

from support.commands import assert_same_geometry, run_nnunet, uncseg
from uncseg.config.training_sections import PROTOCOLS
from uncseg.dataset.scan import scan_folder
from uncseg.estimators.registry import ALL_MAPS
from uncseg.evaluation.figures import KINDS, dice_columns, figures_by_key
from uncseg.metric_keys import case_key
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture(scope="module")
def all_cases(root):
    """The cases that were trained on."""
    return scan_folder(root / "cases", task=paper_task()).cases


@pytest.fixture(scope="module")
def cases_of_fold_0(root, all_cases):
    """The cases that fold 0 has not seen."""
    splits = json.loads(next(root.rglob("splits_final.json")).read_text())
    return [case for case in all_cases if case.case_id in splits[0]["val"]]


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_mlflow_can_search_and_load_what_was_run(root, run):
    client = MlflowClient(f"sqlite:///{root}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("uncseg").experiment_id])
    (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    assert float(parent.data.params["loss.unc_weight"]) == 0.4
    assert {"dataset_digest", "split_digest", "version_torch"} <= set(parent.data.tags)
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.source_run_id == parent.info.run_id
    assert client.get_model_version_by_alias(parent.info.run_name, "candidate").run_id == parent.info.run_id
    names = {item.path for item in client.list_artifacts(parent.info.run_id, "tables")}
    assert {"tables/table1.csv", "tables/table2.csv", "tables/per_case.parquet"} <= names


def test_every_row_of_table_2_is_filled(run):
    table = pd.read_parquet(run.tables / "table2.parquet")
    estimators = {
        "uncertainty",
        "variance_stable",
        "var1shot",
        "entropy",
        "calibrated",
        "min_p",
        "one_minus_p",
        "one_minus_max",
        "border_distance",
        "constant",
        "oracle",
    }
    for protocol in ("reference", "union"):
        rows = table[table["protocol"] == protocol].set_index("estimator")
        assert set(rows.index) == estimators
        assert rows["rmsd_failure"].notna().all()
        assert rows.drop(index="calibrated")[["rmsd_ema_last", "rmsd_ema_final"]].notna().all(axis=None)


def test_every_column_of_the_tables_is_known(run):
    scores = pd.read_parquet(run.tables / "scores.parquet")
    listed = {"num_tp", "num_fp", "num_fn", "qu_auc_dice", "qu_auc_ftp", "qu_auc_ftn", "auprc_brain", "fpr95_brain"}
    listed |= {"case", "patient", "fold", "region", "reference_volume_ml", "predicted_volume_ml"}
    assert set(scores.columns) - set(figures_by_key()) <= listed | {"rmsd_failure_reference"}
    listed = {"case", "patient", "fold", "expected_dice_wt", "uncertainty_from", *dice_columns(paper_task())}
    listed |= {f"{what}_{p}" for what in ("visited_share", "mask_voxels") for p in PROTOCOLS}
    names = ("reference_{}_ml", "predicted_{}_ml", "failure_rate_{}")
    listed |= {name.format(region) for name in names for region in ("wt", "tc", "et")}
    listed |= {case_key(name, protocol, kind) for name in ALL_MAPS for protocol in PROTOCOLS for kind in KINDS}
    listed |= {case_key(name, "union", kind) for name in ALL_MAPS for kind in ("auprc", "brier", "ece")}
    assert set(pd.read_parquet(run.tables / "per_case.parquet").columns) <= listed


def test_outputs_lie_in_their_cases_own_geometry(root, run, all_cases):
    splits = json.loads(next(root.rglob("splits_final.json")).read_text())
    per_case = pd.read_parquet(run.tables / "per_case.parquet").set_index("case")
    assert len(per_case) == len(all_cases) == 6
    for case in all_cases:
        assert case.case_id in splits[per_case.loc[case.case_id, "fold"]]["val"]
        own = sitk.ReadImage(str(case.images[0]))
        files = sorted(run.out_of_fold.glob(f"{case.case_id}*.nii.gz"))
        assert len(files) == 6
        for file in files:
            assert_same_geometry(file, own)
            values = voxels(file)
            assert 0 <= values.min() <= values.max() <= (3 if file.stem == f"{case.case_id}.nii" else 1)


def test_dice_in_the_table_is_that_of_the_files(run, all_cases):
    per_case = pd.read_parquet(run.tables / "per_case.parquet").set_index("case")
    for case in all_cases:
        found = voxels(run.out_of_fold / f"{case.case_id}.nii.gz") > 0
        expected = voxels(case.reference) > 0
        both = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert per_case.loc[case.case_id, "dice_wt"] == pytest.approx(both)


@pytest.mark.slow  # test_registered_model.py does the same with the model as it is registered
def test_nnunets_own_command_predicts_the_same(run, cases_of_fold_0, tmp_path):
    (tmp_path / "images").mkdir()
    for case in cases_of_fold_0:
        for channel, image in enumerate(case.images):
            (tmp_path / "images" / f"{case.case_id}_{channel:04d}.nii.gz").symlink_to(image)
    run_nnunet(
        tmp_path,
        "nnUNetv2_predict_from_modelfolder",
        *("-i", tmp_path / "images", "-o", tmp_path / "out", "-m", run.model, "-f", 0),
        *("--disable_tta", "-device", "cpu", "-npp", 1, "-nps", 1),
    )
    for case in cases_of_fold_0:
        theirs, ours = (voxels(folder / f"{case.case_id}.nii.gz") for folder in (tmp_path / "out", run.out_of_fold))
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def predicted(run, cases_of_fold_0, tmp_path_factory):
    """Fold 0's own cases and a truncated one, predicted by fold 0 as if they were new: (folder, output)."""
    folder = tmp_path_factory.mktemp("new")
    for case in cases_of_fold_0:
        (folder / "cases" / case.case_id).mkdir(parents=True)
        for image in case.images:  # without the reference
            (folder / "cases" / case.case_id / image.name).symlink_to(image)
    bad, first = folder / "cases" / "BraTS-GLI-99999-000", cases_of_fold_0[0]
    shutil.copytree(folder / "cases" / first.case_id, bad)
    for image in sorted(bad.iterdir()):
        image.rename(bad / f"BraTS-GLI-99999-000-{image.name.rpartition('-')[2]}")
    (bad / "BraTS-GLI-99999-000-t2w.nii.gz").write_bytes(first.images[3].read_bytes()[:500])
    return folder, predict(run, folder)


def predict(run, folder):
    return uncseg("predict", run.root, folder / "cases", folder / "out", "--folds", 0, code=1)


def test_a_bad_case_is_named_and_the_others_are_predicted(predicted, cases_of_fold_0):
    folder, output = predicted
    assert "(1 problem)" in output
    assert "NIfTI" in output
    assert sorted(path.stem for path in (folder / "out").glob("*.json")) == [case.case_id for case in cases_of_fold_0]
    assert not list((folder / "out").glob("*99999*"))


def test_a_new_case_is_predicted_as_out_of_fold(predicted, run, cases_of_fold_0):
    folder, _ = predicted
    for case in (case.case_id for case in cases_of_fold_0):
        for file in (f"{case}.nii.gz", f"{case}_uncertainty.nii.gz"):
            own = run.out_of_fold / file
            np.testing.assert_allclose(voxels(folder / "out" / file), voxels(own), atol=1e-5)
            assert_same_geometry(folder / "out" / file, sitk.ReadImage(str(own)))
        record = json.loads((folder / "out" / f"{case}.json").read_text())
        volume_mm3 = np.prod(sitk.ReadImage(str(folder / "out" / f"{case}.nii.gz")).GetSpacing())
        wt = (voxels(folder / "out" / f"{case}.nii.gz") > 0).sum() * volume_mm3 / 1000
        assert record["volume_wt_ml"] == pytest.approx(wt)


def test_what_is_predicted_is_not_predicted_again(predicted, run, cases_of_fold_0):
    folder, _ = predicted
    first, *others = (case.case_id for case in cases_of_fold_0)
    before = {file: file.stat().st_mtime_ns for file in (folder / "out").glob("BraTS*") if first not in file.name}
    assert len(before) == 3 * len(others)  # labels, uncertainty, record
    (folder / "out" / f"{first}.json").unlink()
    predict(run, folder)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (folder / "out" / f"{first}.json").is_file()
