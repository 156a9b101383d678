"""What the folds of a run learn from each other's failures: in the tables, in new cases, and of which cases."""

import json
import shutil
from dataclasses import replace

import blosc2
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from support.commands import uncseg
from uncseg.cluster.resources import FoldResources, Slots
from uncseg.config.experiment import load_experiment
from uncseg.config.training_sections import PROTOCOLS
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.runs.cross_fitting import learn_fold
from uncseg.runs.failure_data import keep_decisions
from uncseg.runs.fold_request import RunRequest

LEARN = ("failures.steps=6", "failures.features=4", "failures.checkpoint_every=3")
BOTH = "evaluation.estimators.one_pass=[calibrated, cross_fitted]"


def options(*settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def copied(root, run, tmp_path_factory):
    """A copy of the trained run whose folds have also trained failure networks."""
    folder = tmp_path_factory.mktemp("cross_fitted")
    shutil.copytree(root, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow*"))
    copied = RunFolder(folder / "runs" / "small")
    uncseg("evaluate", copied.root, *options(*LEARN))
    return copied


def splits(run):
    return json.loads(next(run.root.parent.rglob("splits_final.json")).read_text())


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_both_maps_stand_in_table_2(run, copied):
    table = pd.read_parquet(copied.tables / "table2.parquet").set_index(["protocol", "estimator"])
    for protocol in PROTOCOLS:
        for estimator in ("calibrated", "cross_fitted"):
            assert np.isfinite(table.loc[(protocol, estimator), ["corr_failure", "rmsd_failure"]].astype(float)).all()
    assert table.loc[("union", "calibrated"), "floor"]
    assert not table.loc[("union", "cross_fitted"), "floor"]
    plain = pd.read_parquet(run.tables / "table2.parquet")  # without a network calibrated p stands alone
    assert set(plain["estimator"]) & {"calibrated", "cross_fitted"} == {"calibrated"}


def test_calibrated_p_is_what_its_four_numbers_make_of_the_files(root, run):
    """The formula again, from the probability and the labels that lie in the run's folder."""
    per_case = pd.read_parquet(run.tables / "per_case.parquet").set_index("case")
    for fold, part in enumerate(splits(run)):
        numbers = json.loads((run.fold(fold) / "failures.json").read_text())["calibrations"][0]
        for case in part["val"]:
            p = voxels(run.out_of_fold / f"{case}_wt_probability.nii.gz").astype(float).clip(1e-4, 1 - 1e-4)
            predicted = voxels(run.out_of_fold / f"{case}.nii.gz") > 0
            reference = voxels(root / "cases" / case / f"{case}-seg.nii.gz") > 0
            margin = np.where(predicted, 1, -1) * np.log(p / (1 - p))
            logit = numbers["intercept"] + numbers["margin"] * margin
            logit += predicted * (numbers["side"] + numbers["both"] * margin)
            wrong, near = predicted != reference, ndimage.binary_dilation(predicted | reference, np.ones((5, 5, 5)))
            expected = np.sqrt(np.mean((1 / (1 + np.exp(-logit)) - wrong)[near] ** 2))
            assert per_case.loc[case, "calibrated/union/rmsd_failure"] == pytest.approx(expected, abs=2e-3)


def test_each_region_is_judged_by_its_own_map_and_numbers(root, copied, tmp_path):
    """The tumour core again, from what one fold predicts of a case, its labels, and the numbers of that region."""
    case, numbers = splits(copied)[0]["val"][0], json.loads((copied.fold(0) / "failures.json").read_text())
    shutil.copytree(root / "cases" / case, tmp_path / "new" / case)
    told = "--folds", 0, "--probabilities", *options(BOTH)
    uncseg("predict", copied.root, tmp_path / "new", tmp_path / "out", *told)
    rows = pd.read_parquet(copied.tables / "per_region.parquet").set_index(["case", "region"])
    per_case = pd.read_parquet(copied.tables / "per_case.parquet").set_index("case")
    assert rows.loc[(case, "WT"), "min_p/union/brier_failure"] == per_case.loc[case, "min_p/union/brier_failure"]
    p = voxels(tmp_path / "out" / f"{case}_tc_probability.nii.gz").astype(float).clip(1e-4, 1 - 1e-4)
    predicted = np.isin(voxels(tmp_path / "out" / f"{case}.nii.gz"), (1, 3))
    wrong = predicted != np.isin(voxels(root / "cases" / case / f"{case}-seg.nii.gz"), (1, 3))
    near = ndimage.binary_dilation(predicted | wrong, np.ones((5, 5, 5)))
    margin, fitted = np.where(predicted, 1, -1) * np.log(p / (1 - p)), numbers["calibrations"][1]
    logit = fitted["intercept"] + fitted["margin"] * margin + predicted * (fitted["side"] + fitted["both"] * margin)
    expected = {"calibrated": 1 / (1 + np.exp(-logit)), "min_p": np.minimum(p, 1 - p), "constant": wrong[near].mean()}
    for name, u in expected.items():
        brier = np.mean((np.broadcast_to(u, wrong.shape) - wrong)[near] ** 2)
        assert rows.loc[(case, "TC"), f"{name}/union/brier_failure"] == pytest.approx(brier, abs=2e-3), name
    for name in ("calibrated", "cross_fitted"):  # the map that is written for a new case is the one that was judged
        u = voxels(tmp_path / "out" / f"{case}_tc_{name}.nii.gz").astype(float)
        brier = np.mean((u - wrong)[near] ** 2)
        assert rows.loc[(case, "TC"), f"{name}/union/brier_failure"] == pytest.approx(brier, abs=1e-4)
    table = pd.read_parquet(copied.tables / "table4.parquet")
    assert list(table["region"].unique()) == ["WT", "TC", "ET"]
    assert {"calibrated", "cross_fitted", "min_p", "border_distance", "constant"} <= set(table["estimator"])
    assert "Table 4" in (copied.root / "report.html").read_text()


def test_a_new_case_has_the_maps_that_were_judged_out_of_fold(root, copied, tmp_path):
    case = splits(copied)[0]["val"][0]
    shutil.copytree(root / "cases" / case, tmp_path / "new" / case)
    for out, folds in (("one", ("--folds", 0)), ("all", ())):
        uncseg("predict", copied.root, tmp_path / "new", tmp_path / out, *folds, *options(BOTH))
        for name in ("calibrated", "cross_fitted"):
            values = voxels(tmp_path / out / f"{case}_{name}.nii.gz")
            assert 0 <= values.min() < values.max() <= 1
    per_case = pd.read_parquet(copied.tables / "per_case.parquet").set_index("case")
    predicted = voxels(tmp_path / "one" / f"{case}.nii.gz") > 0
    reference = voxels(root / "cases" / case / f"{case}-seg.nii.gz") > 0
    near = ndimage.binary_dilation(predicted | reference, np.ones((5, 5, 5)))
    for name in ("calibrated", "cross_fitted"):
        values = voxels(tmp_path / "one" / f"{case}_{name}.nii.gz").astype(float)
        expected = np.sqrt(np.mean((values - (predicted != reference))[near] ** 2))
        assert per_case.loc[case, f"{name}/union/rmsd_failure"] == pytest.approx(expected, abs=1e-4)


def test_the_gap_is_measured_by_the_same_passes_over_training_and_new_cases(copied, tmp_path):
    shutil.copytree(copied.root.parent, tmp_path / "runs", ignore=shutil.ignore_patterns("mlflow*"))
    run = RunFolder(tmp_path / "runs" / "small")
    said = uncseg("evaluate", run.root, *options("evaluation.training_gap_cases=2"))
    rows = pd.read_parquet(run.tables / "gap.parquet")
    for fold, split in enumerate(splits(copied)):
        own = rows[rows["fold"] == fold]
        assert sorted(own.loc[~own["seen"], "case"]) == sorted(split["val"])
        assert len(own[own["seen"]]) == 2
        assert set(own.loc[own["seen"], "case"]) <= set(split["train"])
    # these cases have the voxels of the grid: new ones have the Dice of the table
    per_case = pd.read_parquet(run.tables / "per_case.parquet").set_index("case")
    new = rows[~rows["seen"]].set_index("case")
    np.testing.assert_allclose(new["dice_wt"], per_case.loc[new.index, "dice_wt"], atol=1e-6)
    assert rows["error"].between(0, 1).all()
    assert "plain passes, Dice wt" in said
    assert "on 4 training cases" in said


def test_another_map_can_be_a_cases_uncertainty_out_of_fold_and_for_new_cases(root, copied, tmp_path):
    case = splits(copied)[0]["val"][0]
    shutil.copytree(root / "cases" / case, tmp_path / "new" / case)
    chosen = options("evaluation.uncertainty=calibrated")
    told = "--folds", 0, *chosen, *options(BOTH)
    uncseg("predict", copied.root, tmp_path / "new", tmp_path / "out", *told)
    maps = {name: voxels(tmp_path / "out" / f"{case}_{name}.nii.gz") for name in ("uncertainty", "calibrated")}
    predicted = voxels(tmp_path / "out" / f"{case}.nii.gz") > 0
    around = ndimage.binary_dilation(predicted, np.ones((5, 5, 5)))
    np.testing.assert_array_equal(maps["uncertainty"], maps["calibrated"] * around)
    record = json.loads((tmp_path / "out" / f"{case}.json").read_text())
    assert record["uncertainty_from"] == "calibrated"
    wrong = maps["uncertainty"].astype(float)
    right = 2 * (predicted.sum() - wrong[predicted].sum())
    assert record["expected_dice_wt"] == pytest.approx(right / (right + wrong.sum()), rel=1e-5)
    copy = tmp_path / "runs"
    shutil.copytree(copied.root.parent, copy, ignore=shutil.ignore_patterns("mlflow*"))
    uncseg("evaluate", copy / "small", *chosen)
    np.testing.assert_allclose(voxels(copy / "small" / "out_of_fold" / f"{case}_uncertainty.nii.gz"), wrong, atol=1e-5)
    out_of_fold = pd.read_parquet(copy / "small" / "tables" / "per_case.parquet").set_index("case")
    assert out_of_fold.loc[case, "expected_dice_wt"] == pytest.approx(record["expected_dice_wt"], rel=1e-4)
    before = pd.read_parquet(copied.tables / "per_case.parquet").set_index("case")
    head = "uncertainty/union/brier_failure"  # Table 3's row of the head stays the head's
    assert out_of_fold.loc[case, head] == before.loc[case, head]


def test_a_map_that_no_fold_has_learnt_is_refused(root, run, tmp_path):
    said = uncseg("predict", run.root, root / "cohort", tmp_path / "out", *options(BOTH), code=2)
    assert "failures.perceptron" in said
    wanted = options("evaluation.uncertainty=cross_fitted")
    said = uncseg("predict", run.root, root / "cohort", tmp_path / "out", *wanted, code=2)
    assert "evaluation.uncertainty" in said
    for command in (("evaluate", run.root), ("cross-validate", root / "experiment.yaml")):
        assert "failures.perceptron" in uncseg(*command, *wanted, code=2)
    assert not (tmp_path / "out").exists()


def test_what_was_learnt_is_not_learnt_again(copied):
    files = [copied.learnt_failures(fold) for fold in range(2)]
    before = [file.stat().st_mtime_ns for file in files]
    uncseg("evaluate", copied.root, *options(*LEARN))
    assert [file.stat().st_mtime_ns for file in files] == before
    assert not list(copied.model.glob("fold_*/failures_latest.pth"))
    uncseg("evaluate", copied.root)  # asks for no network, and takes none away
    assert [file.stat().st_mtime_ns for file in files] == before


def test_boosted_trees_learn_in_place_of_a_network(root, run, tmp_path):
    """The map that is judged is the one of a new case; trees are learnt from more than their decisions say."""
    shutil.copytree(root, tmp_path / "trained", ignore=shutil.ignore_patterns("mlflow*"))
    own = RunFolder(tmp_path / "trained" / "runs" / "small")
    uncseg("evaluate", own.root, *options("failures.trees=20"))
    assert not list(own.failures.glob("*.b2nd")), "they need no whole cases"
    files = [own.learnt_failures(fold) for fold in range(2)]
    before = [file.read_bytes() for file in files]
    table = pd.read_parquet(own.tables / "table3.parquet").set_index("estimator")
    assert np.isfinite(table.loc["cross_fitted", "auprc_failure"])
    assert table.loc["cross_fitted", "auprc_failure"] != table.loc["calibrated", "auprc_failure"]
    case = splits(own)[0]["val"][0]
    shutil.copytree(root / "cases" / case, tmp_path / "new" / case)
    chosen = options(BOTH, "evaluation.uncertainty=cross_fitted")
    uncseg("predict", own.root, tmp_path / "new", tmp_path / "out", "--folds", 0, *chosen)
    assert json.loads((tmp_path / "out" / f"{case}.json").read_text())["uncertainty_from"] == "cross_fitted"
    predicted = voxels(tmp_path / "out" / f"{case}.nii.gz") > 0
    reference = voxels(root / "cases" / case / f"{case}-seg.nii.gz") > 0
    near = ndimage.binary_dilation(predicted | reference, np.ones((5, 5, 5)))
    values = voxels(tmp_path / "out" / f"{case}_cross_fitted.nii.gz").astype(float)
    per_case = pd.read_parquet(own.tables / "per_case.parquet").set_index("case")
    expected = np.mean((values - (predicted != reference))[near] ** 2)
    assert per_case.loc[case, "cross_fitted/union/brier_failure"] == pytest.approx(expected, abs=1e-4)
    for file in own.model.glob("fold_*/failures.*"):
        file.unlink()
    uncseg("evaluate", own.root, *options("failures.trees=20"))
    assert [file.read_bytes() for file in files] == before, "learnt again, bit for bit"


@pytest.fixture
def request_of_copy(copied, tmp_path):
    """The request of a run that tests may change, and the digest of what is kept of each case."""
    folder = tmp_path / "changed"
    shutil.copytree(copied.root.parent, folder / "runs", ignore=shutil.ignore_patterns("mlflow*"))
    run = RunFolder(folder / "runs" / "small")
    experiment = load_experiment(run.experiment, [*LEARN, f"storage.path={folder / 'runs'}"])
    (prepared,) = (folder / "runs" / "prepared").glob("*/nnUNet_preprocessed/*/nnUNetPlans.json")
    request = RunRequest(
        experiment,
        PreparedFolder(prepared.parents[2], prepared.parent.name),
        run,
        Slots(1, 1, 1, FoldResources(1, 0), 1),
    )
    return request, {file.stem: json.loads(file.read_text())["source"] for file in run.failures.glob("*.json")}


def learnt_weights(request, fold, sources, number):
    """Learn once more, as if from other files, and return all that was learnt."""
    others = {case: f"{digest} {number}" for case, digest in sources.items()}
    learn_fold(request, fold, others)
    return torch.load(request.run.learnt_failures(fold))


def same(first, second):
    networks = [learnt["network_weights"] or {} for learnt in (first, second)]
    weights = zip(*(network.values() for network in networks), strict=True)
    alike = all(first[name] == second[name] for name in ("calibrations", "trees"))
    perceptrons = [pair for pair in zip(first["perceptrons"], second["perceptrons"], strict=True) if None not in pair]
    weights = [*weights, *((a[name], b[name]) for a, b in perceptrons for name in a)]
    return alike and all(torch.equal(*pair) for pair in weights)


@pytest.mark.parametrize("learner", ["network", "trees", "perceptron"])
def test_no_reference_of_a_folds_own_cases_reaches_what_it_learns(request_of_copy, learner):
    """A marker in the references of fold 0's own cases changes fold 1 alone; then these cases are taken away."""
    request, sources = request_of_copy
    if learner != "network":
        failures = request.experiment.failures.model_copy(update={"steps": 0, learner: 5})
        request = replace(request, experiment=request.experiment.model_copy(update={"failures": failures}))
        sources = {
            case: keep_decisions(request.fold(fold), case)
            for fold in (0, 1)
            for case in splits(request.run)[fold]["val"]
        }
    own = splits(request.run)[0]["val"]
    of = {fold: {case: source for case, source in sources.items() if (case in own) != (fold == 0)} for fold in (0, 1)}
    before = [learnt_weights(request, fold, of[fold], "before") for fold in (0, 1)]
    folder = request.prepared.dataset
    for case in own:
        (file,) = folder.rglob(f"{case}_seg.b2nd")
        labels = blosc2.open(str(file))[:]
        labels[:, 1:9] = 3
        file.unlink()
        blosc2.asarray(labels, urlpath=str(file), mode="w")
        with np.load(request.run.failures / f"{case}.npz") as arrays:
            kept = dict(arrays)
        np.savez(request.run.failures / f"{case}.npz", **kept | {"wrong": ~kept["wrong"]})
    assert same(learnt_weights(request, 0, of[0], "marked"), before[0])
    assert not same(learnt_weights(request, 1, of[1], "marked"), before[1])
    for file in [*request.run.failures.iterdir(), *folder.rglob("*.b2nd"), *folder.rglob("*.pkl")]:
        if any(file.name.startswith(case) for case in own):
            file.unlink()
    assert same(learnt_weights(request, 0, of[0], "taken away"), before[0])
