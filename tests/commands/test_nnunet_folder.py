"""An nnU-Net dataset folder, of another organ, is taken as it is by all commands."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from support.commands import uncseg
from support.nnunet_folder import write_nnunet_folder
from support.small_experiment import write_small_experiment
from support.task_ways import TINY, dice, lesions, voxels
from uncseg.console import console
from uncseg.layout import RunFolder
from uncseg.tasks.fields import LesionRule
from uncseg.tasks.task import Task

ZONES = Task.model_validate({"name": "zones", "modalities": ["T2", "ADC"], "labels": {"pz": 1, "tz": 2}})
NAMED = {"background": 0, "peripheral zone": 1, "transition zone": 2}
REGIONS = {"foreground": (1, 2), "peripheral_zone": (1,), "transition_zone": (2,)}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console, "width", 2000)


@pytest.fixture(scope="module")
def made(local_ray, tmp_path_factory):
    """A run of two folds on a dataset folder of nnU-Net, and its predictions of that folder's own images."""
    root = tmp_path_factory.mktemp("nnunet")
    folder = root / "Dataset007_Prostate"
    cases = write_nnunet_folder(folder, ZONES, cases=6, size=32, seed=3, labels=NAMED)
    before = {file: file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))}
    sections = {"training": TINY, "evaluation": {"last_epochs": 1}}
    loss = {"weight_ce": [0.2, 1, 1], "warmup_epochs": 0}
    file = write_small_experiment(root, dataset={"path": str(folder)}, loss=loss, **sections)
    said = uncseg("cross-validate", file)
    run = RunFolder(root / "runs" / "small")
    uncseg("predict", run.root, folder / "imagesTr", root / "out", "--probabilities")
    assert {file: file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))} == before
    return SimpleNamespace(root=root, folder=folder, cases=cases, run=run, said=said, file=file)


def region_of(file, region):
    return np.isin(voxels(file), REGIONS[region])


def test_check_takes_the_folder(made):
    said = uncseg("check", made.folder)
    assert "6 cases" in said
    assert "no problem found" in said
    assert "1 peripheral_zone, 2 transition_zone" in said


def test_the_run_has_the_tasks_regions(made):
    task = yaml.safe_load(made.run.experiment.read_text())["dataset"]["task"]
    assert task["labels"] == {"peripheral_zone": 1, "transition_zone": 2}
    table = pd.read_parquet(made.run.tables / "per_case.parquet").set_index("case")
    assert sorted(table.index) == sorted(made.cases)
    for case in made.cases:
        for region in REGIONS:
            predicted = region_of(made.run.out_of_fold / f"{case}.nii.gz", region)
            reference = region_of(made.folder / "labelsTr" / f"{case}.nii.gz", region)
            assert table.loc[case, f"dice_{region}"] == pytest.approx(dice(predicted, reference), abs=1e-6)


def test_predictions_are_scored_against_the_folders_labels(made):
    for number, references in enumerate((made.folder / "labelsTr", made.folder)):
        out = made.root / f"scores{number}.parquet"
        uncseg("score", made.root / "out", references, "--out", out)
        table = pd.read_parquet(out).set_index(["case", "region"])
        assert set(table.index) == {(case, region) for case in made.cases for region in REGIONS}
        for (case, region), row in table.iterrows():
            predicted = region_of(made.root / "out" / f"{case}.nii.gz", region)
            reference = region_of(made.folder / "labelsTr" / f"{case}.nii.gz", region)
            assert row["dice"] == pytest.approx(dice(predicted, reference), abs=1e-6)
            assert row["num_tp"] + row["num_fn"] == lesions(reference, LesionRule())


def test_the_folder_is_another_cohort_for_evaluate(made):
    uncseg("evaluate", made.run.root, "--dataset", made.folder)
    table = pd.read_parquet(made.run.tables / f"external_{made.folder.name}.parquet")
    assert set(table["region"]) == set(REGIONS)
    assert set(table["case"]) == set(made.cases)


def test_the_page_of_the_run_speaks_of_its_regions(made):
    uncseg("report", made.run.root)
    page = (made.run.root / "report.html").read_text()
    assert all(f"Dice {region}" in page for region in REGIONS)
