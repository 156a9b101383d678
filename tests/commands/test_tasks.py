"""Other tasks than the paper's through all commands: after treatment, metastases, one label in one modality."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from support.commands import uncseg
from support.own_tasks import PROSTATE
from support.small_experiment import write_small_experiment
from support.task_ways import TINY, dice, inside, lesions, voxels
from uncseg.console import console
from uncseg.layout import RunFolder
from uncseg.tasks.built_in_tasks import built_in
from uncseg.tracking.spool import read_history

TASKS = {"gli-2024": built_in("gli-2024"), "met": built_in("met"), "prostate": PROSTATE}
FOREIGN = {"prostate": ("WT", "TC", "ET", "t1n", "t2f"), "gli-2024": ("NCR",), "met": ("NCR", "RC")}
"""Names of other tasks, which must not show up in a run's page."""


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console, "width", 2000)


@pytest.fixture(scope="module", params=TASKS)
def made(request, local_ray, tmp_path_factory):
    """A run of two folds on six phantoms of a task, and the predictions of two others with their scores."""
    root, task = tmp_path_factory.mktemp(request.param), TASKS[request.param]
    name = task.name if task.cases else str(root / "prostate.yaml")
    (root / "prostate.yaml").write_text(
        yaml.safe_dump(PROSTATE.model_dump(mode="json", exclude={"name"}), sort_keys=False)
    )
    weights = [0.2, *[1.0] * len(task.labels)]
    file = write_small_experiment(
        root,
        dataset={"task": name, "phantoms": {"cases": 6, "size": 32, "seed": 1}},
        training=TINY,
        loss={"weight_ce": weights, "warmup_epochs": 0},
        evaluation={"last_epochs": 1},
    )
    uncseg("cross-validate", file)
    uncseg("phantom", root / "new", "--task", name, "--cases", 2, "--size", 32, "--seed", 2)
    run = RunFolder(root / "runs" / "small")
    uncseg("predict", run.root, root / "new", root / "out", "--probabilities", "--overlays")
    scores = root / "scores.parquet"
    uncseg("score", root / "out", root / "new", "--task", name, "--out", scores)
    counts = {
        (case.name, region): lesions(inside(case / f"{case.name}-seg.nii.gz", task, region), task.lesions)
        for case in (root / "new").iterdir()
        if case.is_dir()
        for region in task.regions
    }
    return SimpleNamespace(root=root, task=task, name=name, file=file, run=run, scores=scores, lesions=counts)


def test_check_takes_the_cases(made):
    said = uncseg("check", made.root / "cases", "--task", made.name)
    assert "no problem found" in said
    assert made.task.title in said


def test_cases_are_scored_per_region_of_the_task(made):
    table = pd.read_parquet(made.run.tables / "per_case.parquet").set_index("case")
    assert len(table) == 6
    keys = made.task.region_keys
    assert {column for column in table if column.startswith("dice_")} == {
        *(f"dice_{key}" for key in keys.values()),
        "dice_mean",
    }
    for case, row in table.iterrows():
        for region, key in keys.items():
            predicted = inside(made.run.out_of_fold / f"{case}.nii.gz", made.task, region)
            reference = inside(made.root / "cases" / case / f"{case}-seg.nii.gz", made.task, region)
            assert row[f"dice_{key}"] == pytest.approx(dice(predicted, reference), abs=1e-6)
    assert {
        file.name.removeprefix(f"{case}_") for file in made.run.out_of_fold.glob(f"{case}_*_probability.nii.gz")
    } == {f"{made.task.main_key}_probability.nii.gz"}


def test_networks_have_a_channel_more_than_labels_and_the_head(made):
    weights = torch.load(made.run.final_checkpoint(0), weights_only=False)["network_weights"]
    outputs = [value for name, value in weights.items() if name.endswith("seg_layers.0.weight")]
    assert outputs[0].shape[0] == len(made.task.labels) + 1
    first = next(value for value in weights.values() if value.ndim == 5)
    assert first.shape[1] == len(made.task.modalities)


def test_metrics_of_the_epochs_have_the_names_of_the_regions(made):
    epochs = read_history(made.run.spool, 0).epochs
    names = {name for epoch in epochs.values() for name in epoch.metrics if name.startswith("val_patch/dice")}
    assert names == {"val_patch/dice_mean", *(f"val_patch/dice_{key}" for key in made.task.region_keys.values())}


def test_predictions_are_scored_by_the_tasks_rule(made):
    table = pd.read_parquet(made.scores).set_index(["case", "region"])
    assert set(table.index.get_level_values("region")) == set(made.task.regions)
    for (case, region), row in table.iterrows():
        reference = inside(made.root / "new" / case / f"{case}-seg.nii.gz", made.task, region)
        predicted = inside(made.root / "out" / f"{case}.nii.gz", made.task, region)
        assert row["dice"] == pytest.approx(dice(predicted, reference), abs=1e-6)
        assert row["num_tp"] + row["num_fn"] == made.lesions[case, region]
    cases = list((made.root / "new").glob("*/"))
    for case in (folder.name for folder in cases if folder.is_dir()):
        record = json.loads((made.root / "out" / f"{case}.json").read_text())
        assert 0 <= record[f"expected_dice_{made.task.main_key}"] <= 1
        for key in made.task.region_keys.values():
            probability = voxels(made.root / "out" / f"{case}_{key}_probability.nii.gz")
            assert 0 <= probability.min() <= probability.max() <= 1


def test_scores_without_a_task_are_those_of_the_run(made):
    """The names of the cases, or what a run has left beside its predictions, tell the task."""
    uncseg("score", made.root / "out", made.root / "new", "--out", made.root / "again.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(made.root / "again.parquet"), pd.read_parquet(made.scores))


def test_the_map_of_the_main_region_is_scored_in_it_and_in_the_regions_within(made):
    """A resection cavity lies outside of the tumour, whose errors are all that the map shows."""
    task = made.task
    expected = {region for region, labels in task.regions.items() if set(labels) <= set(task.regions[task.main_region])}
    own = pd.read_parquet(made.run.tables / "scores.parquet")
    maps = made.root / "with_maps.parquet"
    uncseg("score", made.root / "out", made.root / "new", "--uncertainty", made.root / "out", "--out", maps)
    for table in (own, pd.read_parquet(maps)):
        assert set(table.dropna(subset=["qu_score"])["region"]) == expected
        assert set(table["region"]) == set(task.regions)


def test_another_cohort_is_evaluated(made):
    uncseg("evaluate", made.run.root, "--dataset", made.root / "new")
    table = pd.read_parquet(made.run.tables / "external_new.parquet")
    assert set(table["region"]) == set(made.task.regions)
    for row in table[table["case"] != ""].to_dict("records"):
        assert row["num_tp"] + row["num_fn"] == made.lesions[row["case"], row["region"]]


def test_the_page_of_the_run_speaks_of_its_task(made):
    uncseg("evaluate", made.run.root)
    uncseg("report", made.run.root)
    page = (made.run.root / "report.html").read_text()
    for region in made.task.regions:
        assert f"Dice {region}" in page
    words = set(page.replace("<", " ").replace(">", " ").split())
    assert not words & set(FOREIGN[made.task.name])


@pytest.mark.slow
def test_a_sweep_of_two_trials_finds_the_best(made):
    label = next(iter(made.task.labels)).lower()
    sweep = {
        "name": "search",
        "base": str(made.file),
        "space": {f"loss.weight_ce.{label}": {"grid_search": [0.5, 1.0]}},
        "trials": 2,
        "objectives": [{"metric": f"val_patch/dice_{made.task.main_key}"}],
        "search": {"type": "grid"},
        "scheduler": {"type": "fifo"},
    }
    (made.root / "search.yaml").write_text(yaml.safe_dump(sweep))
    uncseg("sweep", made.root / "search.yaml")
    table = pd.read_parquet(made.root / "runs/search/tables/trials.parquet")
    assert sorted(table[f"loss.weight_ce.{label}"]) == [0.5, 1.0]
    assert set(table["state"]) == {"finished"}
    best = yaml.safe_load((made.root / "runs/search/best.yaml").read_text())
    assert best["dataset"]["task"]["labels"] == dict(made.task.labels)


@pytest.mark.slow
def test_a_network_of_regions_draws_the_cavity_too(local_ray, tmp_path):
    task = built_in("gli-2024")
    file = write_small_experiment(
        tmp_path,
        dataset={"task": "gli-2024", "phantoms": {"cases": 6, "size": 32, "seed": 1}},
        model={"output": "regions"},
        training=TINY | {"epochs": 12, "iterations_per_epoch": 16},
        loss={"weight_ce": None, "warmup_epochs": 0},
        evaluation={"last_epochs": 1},
    )
    uncseg("cross-validate", file)
    uncseg("phantom", tmp_path / "new", "--task", "gli-2024", "--cases", 2, "--size", 32, "--seed", 2)
    uncseg("predict", tmp_path / "runs/small", tmp_path / "new", tmp_path / "out", "--probabilities")
    found = set()
    for file in (tmp_path / "out").glob("BraTS-GLI-*-???.nii.gz"):
        labels, name = voxels(file), file.name.removesuffix(".nii.gz")
        above = {
            region: voxels(file.with_name(f"{name}_{key}_probability.nii.gz")) > 0.5
            for region, key in task.region_keys.items()
        }
        # regions are drawn one over the other, in the task's order, each as the label that it has for itself
        drawn = np.zeros_like(labels)
        for region, label in (("WT", "SNFH"), ("TC", "NETC"), ("ET", "ET"), ("RC", "RC")):
            drawn[above[region]] = task.labels[label]
        np.testing.assert_array_equal(labels, drawn)
        found |= set(np.unique(labels))
    assert task.labels["SNFH"] in found
