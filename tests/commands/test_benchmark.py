"""``uncseg benchmark`` on small cases: trainings, estimators and the table; a second run has nothing to do.

The quick tests run two of the trainings, the slow ones all of them.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from mlflow import MlflowClient

from support.commands import uncseg
from support.small_experiment import write_small_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.layout import RunFolder
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.pyfunc_model import Segmentation

TRAININGS = {
    "plain": {
        "set": {
            "model.uncertainty": False,
            "training.members": 2,
            "failures.steps": 4,
            "failures.features": 4,
            "evaluation.estimators": {"deep_ensemble": True, "augmentation": {"samples": 4}},
        },
        "maps": [
            *("cross_fitted", "calibrated", "entropy", "var1shot", "variance_stable"),
            *("one_minus_p", "border_distance", "constant"),
        ],
    },
    "noisy_dropout": {
        "set": {
            "model.uncertainty": False,
            "model.heteroscedastic": True,
            "model.dropout": 0.2,
            "evaluation.estimators": {"heteroscedastic": {"samples": 5}, "mc_dropout": {"samples": 3}},
        }
    },
    "error_features": {"set": {"model.error_network": {"run": "plain", "kind": "features"}}},
    "published_memory": {"set": {"memory.published": {}}, "maps": ["against_decision"]},
    "of_members": {"set": {"memory": {"source": "members", "run": "plain"}, "model.head": "decoder_stages"}},
    "of_failures": {"set": {"memory": {"source": "cross_fitted", "run": "plain"}, "model.residual": True}},
}
ROWS = {
    *(f"plain/{name}" for name in TRAININGS["plain"]["maps"]),
    "oracle",
    *(f"plain/deep_ensemble_{part}" for part in ("total", "aleatoric", "epistemic", "entropy", "against_decision")),
    *(f"plain/augmentation_{part}" for part in ("total", "variance", "entropy", "against_decision")),
    *(f"noisy_dropout/heteroscedastic_{part}" for part in ("total", "variance", "entropy", "against_decision")),
    *(
        f"noisy_dropout/mc_dropout_{part}"
        for part in ("total", "aleatoric", "epistemic", "entropy", "against_decision")
    ),
    "error_features/uncertainty",
    "of_members/uncertainty",
    "of_failures/uncertainty",
    "published_memory/uncertainty",
    "published_memory/against_decision",
}


CASES = 8
FEW, ALL = ("plain", "published_memory"), tuple(TRAININGS)
SLOW_ALL = pytest.param(ALL, marks=pytest.mark.slow, id="all trainings")


def expected_rows(trainings):
    return {row for row in ROWS if row == "oracle" or row.partition("/")[0] in trainings}


@pytest.fixture(scope="module", params=[pytest.param(FEW, id="two trainings"), SLOW_ALL])
def trainings(request):
    """Names of the trainings that are compared."""
    return request.param


@pytest.fixture(scope="module")
def done(local_ray, trainings, tmp_path_factory):
    """The benchmark's folder, its file, and what the command printed."""
    root = tmp_path_factory.mktemp("benchmark")
    write_phantoms(root / "cases", cases=CASES, size=28, seed=0, task=paper_task())
    base = write_small_experiment(
        root,
        "base.yaml",
        loss={"cancer_mask": "union"},
        model={"deep_supervision": False},
        training={"epochs": 6, "iterations_per_epoch": 8, "val_iterations_per_epoch": 3, "checkpoint_every": 10},
        evaluation={"last_epochs": 3},
    )
    content = {
        "name": "compared",
        "base": str(base),
        "seeds": [4],
        "least_dice": 0,
        "cost_repeats": 2,
        "proposed": "plain/cross_fitted",
        "trainings": {name: TRAININGS[name] for name in trainings},
    }
    file = root / "benchmark.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return BenchmarkFolder(root / "runs" / "compared"), file, uncseg("benchmark", file)


def test_every_row_is_there_and_filled(done, trainings):
    folder, _, said = done
    table = pd.read_parquet(folder.tables / "benchmark.parquet").set_index("method")
    assert set(table.index) == expected_rows(trainings)
    rows = pd.read_parquet(folder.tables / "rows.parquet")
    assert rows.groupby(["method", "segmentation"])["case"].nunique().eq(CASES).all()
    assert table[["passes", "models", "training_cost", "inference_cost", "dice_wt"]].notna().all(axis=None)
    assert table.loc["plain/entropy", "inference_cost"] == pytest.approx(1), "the unit"
    assert table.loc["plain/deep_ensemble_total", "training_cost"] == pytest.approx(
        2 * table.loc["plain/entropy", "training_cost"]
    )
    assert table.loc["plain/deep_ensemble_total", "models"] == 2
    costs = json.loads(folder.costs.read_text())["training"]
    per_step = costs["seconds"]["plain/cross_fitted"] / costs["seconds"]["nnU-Net"]
    stage = table.loc["plain/cross_fitted", "training_cost"] - table.loc["plain/calibrated", "training_cost"]
    assert stage == pytest.approx(per_step * 4 / 48, rel=0.5), "4 steps beside 6 epochs of 8"
    assert "the best floor" in said
    names = ("calibrated", "entropy", "var1shot", "one_minus_p", "border_distance", "constant")
    floors = {f"plain/{name}" for name in names}
    assert set(table.index[table["floor"]]) == floors
    ranked = pd.read_parquet(folder.tables / "ranking_corr_oracle_union.parquet").set_index("method")
    assert ranked.loc[sorted(floors), "lead"].max() == 0, "what the others' leads are over"


def test_the_proposed_map_stands_against_every_other_map_and_each_map_against_its_own_floors(done, trainings):
    folder, _, _ = done
    for figure in ("auprc_union", "brier_union", "corr_failure_union", "corr_oracle_union"):
        leads = pd.read_parquet(folder.tables / f"leads_{figure}.parquet").set_index("method")
        assert set(leads.index) == expected_rows(trainings) - {"oracle", "plain/cross_fitted"}
        ranked = pd.read_parquet(folder.tables / f"ranking_{figure}.parquet").set_index("method")
        sign = -1 if figure == "brier_union" else 1
        mean = ranked.loc["plain/cross_fitted", "mean"]
        for method in leads.index:
            assert leads.loc[method, "lead"] == pytest.approx(sign * (mean - ranked.loc[method, "mean"]))
    own = pd.read_parquet(folder.tables / "ranking_own_auprc_union.parquet").set_index("method")
    best = own[own["floor"]].sort_values("mean").index[-1]
    assert own.loc["plain/cross_fitted", "best_floor"] == best
    assert pd.isna(own.loc["published_memory/uncertainty", "best_floor"]), "this training has no floor in the file"
    assert "plain/cross_fitted against every other map" in (folder.tables / "benchmark.md").read_text()


@pytest.mark.parametrize("trainings", [SLOW_ALL], indirect=True)
def test_costs_count_passes_and_the_judged_segmentation(done, trainings):
    table = pd.read_parquet(done[0].tables / "benchmark.parquet").set_index("method")
    assert table.loc["noisy_dropout/mc_dropout_total", "passes"] == 3
    judged = table.loc["plain/entropy", "training_cost"]
    assert table.loc["error_features/uncertainty", "training_cost"] > judged
    assert table.loc["of_members/uncertainty", "training_cost"] > 2 * judged, "two members, and its own"
    assert table.loc["of_failures/uncertainty", "training_cost"] > table.loc["plain/cross_fitted", "training_cost"]


def test_methods_are_judged_by_their_own_segmentation_and_by_the_shared_one(done, trainings):
    rows = pd.read_parquet(done[0].tables / "rows.parquet")
    dice = rows.pivot_table(index="case", columns=["method", "segmentation"], values="dice_wt")
    shared = dice.xs("shared", axis=1, level="segmentation")
    assert np.ptp(shared.to_numpy(), axis=1).max() == 0, "one segmentation for all"
    own = dice.xs("own", axis=1, level="segmentation")
    assert (own["published_memory/uncertainty"] != shared["published_memory/uncertainty"]).any()
    if "error_features" in trainings:
        pd.testing.assert_series_equal(own["plain/entropy"], own["error_features/uncertainty"], check_names=False)
    constant = rows[rows["method"] == "plain/constant"]
    assert (constant["corr_failure_union"].fillna(0) == 0).all()


def test_the_memory_table_tells_differences_apart(done):
    memory = pd.read_parquet(done[0].tables / "memory.parquet")
    assert "" in set(memory["published"])
    assert any(differences.startswith("slots, writes_first") for differences in memory["published"])
    head = memory[(memory["training"] == "published_memory") & (memory["estimator"] == "uncertainty")]
    assert set(head["protocol"]) == {"reference", "union"}
    assert {"one_minus_p", "var1shot"} <= set(memory.loc[memory["floor"], "estimator"]), "floors stand beside it"


def test_plots_page_and_mlflow_are_written(done, trainings):
    folder = done[0]
    assert list(folder.figures.glob("*.png"))
    page = folder.page.read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    client = MlflowClient(f"sqlite:///{folder.root.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("uncseg")
    runs = client.search_runs([experiment.experiment_id])
    above = next(run for run in runs if run.info.run_name == "compared")
    children = {run.info.run_name for run in runs if run.data.tags.get("mlflow.parentRunId") == above.info.run_id}
    assert children == {f"{name}_seed_4" for name in trainings}
    stored = {item.path for item in client.list_artifacts(above.info.run_id)}
    assert {"tables", "figures", "report.html"} <= stored
    assert above.data.metrics["auroc_brain/plain.entropy"] > 0.5


def test_a_network_without_the_head_has_an_uncertainty_from_what_its_folds_have_learnt(done, tmp_path):
    run = RunFolder(done[0].runs / "plain_seed_4")
    case = next(folder for folder in sorted((done[1].parent / "cases").iterdir()) if folder.is_dir())
    shutil.copytree(case, tmp_path / "new" / case.name)
    uncseg("predict", run.root, tmp_path / "new", tmp_path / "out")
    record = json.loads((tmp_path / "out" / f"{case.name}.json").read_text())
    assert record["uncertainty_from"] == "cross_fitted"
    assert 0 <= record["expected_dice_wt"] <= 1
    written = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / f"{case.name}_uncertainty.nii.gz"))
    assert 0 < written.max() <= 1
    # as MLflow loads it
    images = [sitk.ReadImage(case / f"{case.name}-{name}.nii.gz") for name in paper_task().modalities]
    stacked = np.stack([sitk.GetArrayFromImage(image) for image in images]).astype(np.float32)
    found = Segmentation(run.model).predict({"image": stacked, "spacing_mm": images[0].GetSpacing()[::-1]})
    assert found["uncertainty_from"] == "cross_fitted"
    np.testing.assert_allclose(found["uncertainty"], written, atol=1e-4)
    wanted = "--set", "evaluation.uncertainty=head"
    assert "model.uncertainty" in uncseg("predict", run.root, tmp_path / "new", tmp_path / "head", *wanted, code=2)


def test_the_same_command_again_does_nothing_anew(done, trainings):
    folder, file, _ = done
    kept = {path: path.stat().st_mtime_ns for path in folder.runs.rglob("checkpoint_*.pth")}
    scores = {path: path.stat().st_mtime_ns for path in folder.root.glob("cases/*/*.json")}
    table = pd.read_parquet(folder.tables / "benchmark.parquet")
    output = uncseg("benchmark", file)
    assert len(kept) == 2 * 2 * (len(trainings) + 1)  # best and final, two folds; two members of one training
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert scores == {path: path.stat().st_mtime_ns for path in scores}
    assert "0 of them to be trained" in output
    pd.testing.assert_frame_equal(table, pd.read_parquet(folder.tables / "benchmark.parquet"))


def test_a_case_that_cannot_be_scored_is_named_and_leaves_the_other_trainings(done, trainings):
    folder, file, _ = done
    record = next(iter(sorted(folder.root.glob("cases/published_memory_seed_4/*.json"))))
    record.unlink()
    record.mkdir()  # so that nothing can be written there
    output = uncseg("benchmark", file, code=1)
    record.rmdir()
    where = " ".join(line.split("│")[1].strip() for line in output.splitlines() if line.startswith("│"))
    assert f"published_memory_seed_4, {record.stem}" in where
    table = pd.read_parquet(folder.tables / "benchmark.parquet")
    assert set(table["method"]) == {row for row in expected_rows(trainings) if not row.startswith("published_memory/")}
