"""The main job as a user runs it: the command, stopped by Ctrl-C, run again; files, tables and MLflow after it."""

import json
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from mlflow import MlflowClient

from support.commands import assert_nnunet_runs, assert_same_geometry, run_uncseg, start_uncseg
from uncseg.dataset.brats import scan_folder
from uncseg.dataset.phantom import write_phantoms
from uncseg.tracking.spool import read_history

EPOCHS = 25
LIMIT_S = 240


def wait_for(condition, process):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, "the command ended before it was stopped"
        assert time.monotonic() < deadline, "the command never got there"
        time.sleep(0.05)


def complete_cases(root):
    return scan_folder(root / "cases")[0]


@pytest.fixture(scope="module")
def stopped_and_resumed(tmp_path_factory):
    """Two folds one after the other; Ctrl-C in the middle of the second; the same command again."""
    root = tmp_path_factory.mktemp("run")
    write_phantoms(root / "cases", cases=6, size=28, seed=0)
    incomplete = root / "cases/BraTS-GLI-77777-000/BraTS-GLI-77777-000-t1n.nii.gz"  # excluded, from first to last
    incomplete.parent.mkdir()
    incomplete.write_bytes(b"")
    file = root / "experiment.yaml"
    file.write_text(f"""
name: small
dataset: {{path: {root}/cases, name: Small, exclude: [BraTS-GLI-77777-000]}}
split: {{folds: 2}}
plan:
  {{patch_size: [16, 16, 16], batch_size: 2, base_features: 4, max_features: 8, max_stages: 2,
    foreground_samples: 100000}}
loss: {{weight_ce: [0.2, 1, 0.2, 1], warmup_epochs: 2}}
training: {{epochs: {EPOCHS}, iterations_per_epoch: 4, val_iterations_per_epoch: 4, checkpoint_every: 1}}
resources: {{folds_at_once: 1}}
evaluation: {{last_epochs: 5}}
storage: {{path: {root}/runs}}
""")
    spool = root / "runs" / "small" / "spool"
    process = start_uncseg("cross-validate", file, log=root / "first.log")
    first_fold = []

    def in_the_second_fold():
        states = [read_history(spool, fold).state for fold in range(2)]
        epochs = [read_history(spool, fold).last_epoch for fold in range(2)]
        running = [fold for fold in range(2) if states[fold] == "running" and epochs[fold] >= 3]
        if sorted(states) == ["finished", "running"] and running:
            first_fold[:] = [1 - running[0]]
            return True
        return False

    wait_for(in_the_second_fold, process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends
    code = process.wait(LIMIT_S)
    stopped_at = read_history(spool, 1 - first_fold[0]).last_epoch
    second = run_uncseg("cross-validate", file, limit_s=LIMIT_S)
    return {
        "root": root,
        "run": root / "runs" / "small",
        "code": code,
        "first_log": (root / "first.log").read_text(),
        "first_fold": first_fold[0],
        "stopped_at": stopped_at,
        "second": second,
    }


def test_ctrl_c_says_what_to_do(stopped_and_resumed):
    assert stopped_and_resumed["code"] == 1
    assert "same command" in stopped_and_resumed["first_log"]
    for noise in ("Traceback", "core worker", "SIGTERM"):
        assert noise not in stopped_and_resumed["first_log"]


def test_second_command_ends_well(stopped_and_resumed):
    second = stopped_and_resumed["second"]
    assert second.returncode == 0, second.stdout + second.stderr
    for text in ("Table 1", "Table 2", "uncseg ui ", "report:", "figures:"):
        assert text in second.stdout


def test_finished_folds_are_not_trained_again_and_others_go_on(stopped_and_resumed):
    run, done = stopped_and_resumed["run"], stopped_and_resumed["first_fold"]
    assert read_history(run / "spool", done).attempt == 1
    history = read_history(run / "spool", 1 - done)
    assert history.attempt == 2
    # checkpoint_every is 1: at most the epoch in the making is lost
    assert history.first_epochs[2] >= stopped_and_resumed["stopped_at"]
    assert sorted(history.epochs) == list(range(EPOCHS))


def mlflow_runs(stopped_and_resumed):
    client = MlflowClient(f"sqlite:///{stopped_and_resumed['root']}/runs/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "uncseg"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run not in parents]
    return client, parents[0], children


def test_mlflow_holds_each_epoch_once(stopped_and_resumed):
    client, parent, children = mlflow_runs(stopped_and_resumed)
    assert len(children) == 2
    assert all(run.info.status == "FINISHED" for run in (parent, *children))
    epochs = pd.read_parquet(stopped_and_resumed["run"] / "tables" / "epochs.parquet")
    for run in (parent, *children):
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted(metric.step for metric in history) == list(range(EPOCHS))
    mean = {m.step: m.value for m in client.get_metric_history(parent.info.run_id, "val_patch/dice_wt")}
    expected = epochs.groupby("epoch")["val_patch/dice_wt"].mean()
    np.testing.assert_allclose([mean[epoch] for epoch in range(EPOCHS)], expected, rtol=1e-6)


def test_mlflow_can_search_and_load_what_was_run(stopped_and_resumed):
    client, parent, _ = mlflow_runs(stopped_and_resumed)
    assert float(parent.data.params["loss.unc_weight"]) == 0.4
    assert {"dataset_digest", "split_digest", "version_torch"} <= set(parent.data.tags)
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert model.source_run_id == parent.info.run_id
    assert client.get_model_version_by_alias(parent.info.run_name, "candidate").run_id == parent.info.run_id
    names = {item.path for item in client.list_artifacts(parent.info.run_id, "tables")}
    assert {"tables/table1.csv", "tables/table2.csv", "tables/per_case.parquet"} <= names


def test_every_row_of_table_2_is_filled(stopped_and_resumed):
    table = pd.read_parquet(stopped_and_resumed["run"] / "tables" / "table2.parquet")
    estimators = {
        "uncertainty",
        "variance_stable",
        "var1shot",
        "entropy",
        "one_minus_p",
        "one_minus_max",
        "border_distance",
        "constant",
        "oracle",
    }
    for protocol in ("reference", "union"):
        rows = table[table["protocol"] == protocol].set_index("estimator")
        assert set(rows.index) == estimators
        assert rows[["rmsd_ema_last", "rmsd_ema_final", "rmsd_failure"]].notna().all(axis=None)


def test_outputs_lie_in_their_cases_own_geometry(stopped_and_resumed):
    folder = stopped_and_resumed["run"] / "out_of_fold"
    splits = json.loads(next(stopped_and_resumed["root"].rglob("splits_final.json")).read_text())
    per_case = pd.read_parquet(stopped_and_resumed["run"] / "tables" / "per_case.parquet").set_index("case")
    cases = complete_cases(stopped_and_resumed["root"])
    assert len(per_case) == len(cases) == 6
    for case in cases:
        assert case.case_id in splits[per_case.loc[case.case_id, "fold"]]["val"]
        own = sitk.ReadImage(str(case.images[0]))
        files = sorted(folder.glob(f"{case.case_id}*.nii.gz"))
        assert len(files) == 6
        for file in files:
            assert_same_geometry(file, own)
            values = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            assert 0 <= values.min() <= values.max() <= (3 if file.stem == f"{case.case_id}.nii" else 1)


def test_dice_in_the_table_is_that_of_the_files(stopped_and_resumed):
    per_case = pd.read_parquet(stopped_and_resumed["run"] / "tables" / "per_case.parquet").set_index("case")
    for case in complete_cases(stopped_and_resumed["root"]):
        folder = stopped_and_resumed["run"] / "out_of_fold"
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{case.case_id}.nii.gz"))) > 0
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(case.reference))) > 0
        both = 2 * (found & expected).sum() / (found.sum() + expected.sum())
        assert per_case.loc[case.case_id, "dice_wt"] == pytest.approx(both)


def test_another_setting_under_the_same_name_is_refused(stopped_and_resumed):
    file = stopped_and_resumed["root"] / "experiment.yaml"
    result = run_uncseg("cross-validate", file, "--set", "loss.unc_weight=0.1", limit_s=LIMIT_S)
    assert result.returncode == 2
    assert "loss.unc_weight" in result.stdout


def test_nnunets_own_command_predicts_the_same(stopped_and_resumed, tmp_path):
    root, run = stopped_and_resumed["root"], stopped_and_resumed["run"]
    splits = json.loads(next(root.rglob("splits_final.json")).read_text())
    cases = [case for case in complete_cases(root) if case.case_id in splits[0]["val"]]
    for case in cases:
        for channel, image in enumerate(case.images):
            name = tmp_path / "images" / f"{case.case_id}_{channel:04d}.nii.gz"
            name.parent.mkdir(exist_ok=True)
            name.symlink_to(image)
    assert_nnunet_runs(
        tmp_path,
        "nnUNetv2_predict_from_modelfolder",
        *("-i", tmp_path / "images", "-o", tmp_path / "out", "-m", next(run.rglob("plans.json")).parent, "-f", 0),
        *("--disable_tta", "-device", "cpu", "-npp", 1, "-nps", 1),
    )
    for case in cases:
        theirs, ours = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{case.case_id}.nii.gz")))
            for folder in (tmp_path / "out", run / "out_of_fold")
        )
        np.testing.assert_array_equal(ours, theirs)


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.fixture(scope="module")
def predicted(stopped_and_resumed, tmp_path_factory):
    """Fold 0's own cases and a truncated one predicted as if they were new, by each fold and by both together."""
    root, run = stopped_and_resumed["root"], stopped_and_resumed["run"]
    folder = tmp_path_factory.mktemp("new")
    splits = json.loads(next(root.rglob("splits_final.json")).read_text())
    for case in complete_cases(root):
        if case.case_id in splits[0]["val"]:
            (folder / "cases" / case.case_id).mkdir(parents=True)
            for image in case.images:  # without the reference
                (folder / "cases" / case.case_id / image.name).symlink_to(image)
    bad = shutil.copytree(folder / "cases" / case_names(folder)[0], folder / "cases" / "BraTS-GLI-99999-000")
    for image in sorted(bad.iterdir()):
        image.rename(bad / f"BraTS-GLI-99999-000-{image.name.rpartition('-')[2]}")
    (bad / "BraTS-GLI-99999-000-t2w.nii.gz").write_bytes((bad / "BraTS-GLI-99999-000-t2f.nii.gz").read_bytes()[:500])
    results = {}
    for name, option in (("0", ["--folds", "0"]), ("1", ["--folds", "1"]), ("both", [])):
        results[name] = run_uncseg("predict", run, folder / "cases", folder / name, *option, limit_s=LIMIT_S)
    return folder, results


def case_names(folder):
    return sorted(path.name for path in (folder / "cases").iterdir() if "99999" not in path.name)


def test_a_bad_case_is_named_and_the_others_are_predicted(predicted):
    folder, results = predicted
    for name, result in results.items():
        assert result.returncode == 1, result.stdout + result.stderr
        assert "(1 problem)" in result.stdout
        assert "NIfTI" in result.stdout
        assert sorted(path.stem for path in (folder / name).glob("*.json")) == case_names(folder)
        assert not list((folder / name).glob("*99999*"))


def test_a_new_case_is_predicted_as_out_of_fold(predicted, stopped_and_resumed):
    folder, _ = predicted
    for case in case_names(folder):
        for file in (f"{case}.nii.gz", f"{case}_uncertainty.nii.gz"):
            own = stopped_and_resumed["run"] / "out_of_fold" / file
            np.testing.assert_allclose(voxels(folder / "0" / file), voxels(own), atol=1e-5)
            assert_same_geometry(folder / "both" / file, sitk.ReadImage(str(own)))
        record = json.loads((folder / "0" / f"{case}.json").read_text())
        volume_mm3 = np.prod(sitk.ReadImage(str(folder / "0" / f"{case}.nii.gz")).GetSpacing())
        wt = (voxels(folder / "0" / f"{case}.nii.gz") > 0).sum() * volume_mm3 / 1000
        assert record["volume_wt_ml"] == pytest.approx(wt)


def test_folds_are_averaged(predicted):
    folder, _ = predicted
    for case in case_names(folder):
        one, two, both = (voxels(folder / name / f"{case}_uncertainty.nii.gz") for name in ("0", "1", "both"))
        inside = (one > 0) & (two > 0) & (both > 0)
        assert inside.any()
        np.testing.assert_allclose(both[inside], (one[inside] + two[inside]) / 2, atol=1e-5)


def test_what_is_predicted_is_not_predicted_again(predicted, stopped_and_resumed):
    folder, _ = predicted
    first, *others = case_names(folder)
    before = {file: file.stat().st_mtime_ns for file in (folder / "both").glob("BraTS*") if first not in file.name}
    assert len(before) == 4 * len(others)  # labels, uncertainty, spread, record
    (folder / "both" / f"{first}.json").unlink()
    run_uncseg("predict", stopped_and_resumed["run"], folder / "cases", folder / "both", limit_s=LIMIT_S)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (folder / "both" / f"{first}.json").is_file()
