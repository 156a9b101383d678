"""A cross-validation with folds of one's own: one site left out per fold, and nnU-Net's splits_final.json."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from nnunetv2.utilities.crossval_split import generate_crossval_split

from support.commands import uncseg
from support.small_experiment import write_small_experiment
from uncseg.console import console
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.splits import read_splits
from uncseg.files import digest, read_json
from uncseg.tasks.built_in_tasks import paper_task

SITES = {"Bern": [0, 3], "Oslo": [1, 4], "Turin": [2]}
QUICK = {"epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1}


def case(number):
    return f"BraTS-GLI-{number:05d}-000"


@pytest.fixture(scope="module")
def of_sites(local_ray, tmp_path_factory):
    """Five cases (``cases``) of three sites (``sites.csv``) and four patients (``patients.csv``)."""
    of_sites = tmp_path_factory.mktemp("sites")
    write_phantoms(of_sites / "cases", cases=5, size=28, seed=0, task=paper_task())
    lines = [f"{case(n)},{site}\n" for site, numbers in SITES.items() for n in numbers]
    (of_sites / "sites.csv").write_text("case,group\n" + "".join(lines))
    patients = "".join(f"{case(n)},patient {n % 4}\n" for n in range(5) if n % 4)
    patients += f"{case(0)},patient 3\n{case(4)},patient 1\n"
    (of_sites / "patients.csv").write_text("case,patient\n" + patients)
    return of_sites


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console, "width", 600)  # no cell wraps


def experiment(of_sites, name, split, **dataset):
    sections = {"dataset": dataset, "training": QUICK, "loss": {"warmup_epochs": 0}, "evaluation": {"last_epochs": 1}}
    file = write_small_experiment(of_sites, f"{name}.yaml", name=name, **sections)
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"split": split}))
    return file


def test_sites_are_left_out_one_by_one(of_sites, tmp_path):
    for name in ("sites.csv", "patients.csv"):
        shutil.copy(of_sites / name, tmp_path / name)
    lists = str(tmp_path / "sites.csv"), str(tmp_path / "patients.csv")
    file = experiment(of_sites, "sites", {"groups": lists[0]}, patients=lists[1])
    said = uncseg("cross-validate", file)
    assert "patients: 3 patients, by patients.csv" in said
    assert "split:    3 folds, as in sites.csv" in said
    for fold, (site, numbers) in enumerate(SITES.items()):
        assert f"fold {fold}: without {site}, {len(numbers)} case" in said
    run = of_sites / "runs" / "sites"
    table = pd.read_parquet(run / "tables" / "per_case.parquet").set_index("case")
    assert table["fold"].to_dict() == {case(n): fold for fold, site in enumerate(SITES) for n in SITES[site]}
    assert table.loc[case(0), "patient"] == table.loc[case(3), "patient"] == "patient 3"
    (done,) = [record for record in map(read_json, of_sites.glob("runs/prepared/*/prepared.json")) if record["groups"]]
    assert done["groups"] == {"fold_0": "Bern", "fold_1": "Oslo", "fold_2": "Turin"}
    assert done["patients"] == 3
    (splits,) = map(read_splits, of_sites.glob("runs/prepared/*/nnUNet_preprocessed/*/splits_final.json"))
    assert [fold["val"] for fold in splits] == [[case(n) for n in numbers] for numbers in SITES.values()]
    assert done["digests"]["split"] == digest(splits) == read_json(run / "manifest.json")["digests"]["split"]
    # the run holds what it was made from
    (tmp_path / "sites.csv").unlink()
    (tmp_path / "patients.csv").unlink()
    (run / "tables" / "per_case.parquet").unlink()
    uncseg("evaluate", run)
    again = pd.read_parquet(run / "tables" / "per_case.parquet").set_index("case")
    pd.testing.assert_frame_equal(again, table, check_like=True)
    uncseg("report", run)
    assert "3 folds, digest" in (run / "report.html").read_text()
    # other lists are other settings
    (tmp_path / "patients.csv").write_text((of_sites / "patients.csv").read_text())
    (tmp_path / "sites.csv").write_text((of_sites / "sites.csv").read_text().replace("Turin", "Oslo"))
    said = uncseg("cross-validate", file, code=2)
    assert "split.groups" in said
    assert "as the run was started" in said


def test_nnunets_own_split_is_used_as_it_is(of_sites):
    folds = [{"train": [case(2), case(3)], "val": [case(0), case(1)]}]
    folds.append({"train": [case(0), case(1)], "val": [case(2), case(3), case(4)]})
    (of_sites / "splits_final.json").write_text(json.dumps(folds))
    file = experiment(of_sites, "nnunet", {"file": str(of_sites / "splits_final.json")})
    said = uncseg("cross-validate", file, "--dry-run")
    assert "labels of BraTS 2023: 1 NCR, 2 ED, 3 ET (by the names of the files)" in said
    assert "patients: 5 patients, by the names BraTS-XXX-NNNNN-NNN" in said
    assert "split:    2 folds, as in splits_final.json" in said
    assert "fold 1: 3 cases" in said
    written = [read_splits(path) for path in of_sites.glob("runs/prepared/*/nnUNet_preprocessed/*/splits_final.json")]
    assert folds in written


def test_a_patient_in_two_folds_is_refused_and_allowed(of_sites):
    split = {"groups": str(of_sites / "sites.csv")}
    file = experiment(of_sites, "shared", split, patients="(BraTS-GLI)-")
    said = uncseg("cross-validate", file, "--dry-run", code=2)
    assert f"patient BraTS-GLI in several folds: {case(0)} (group Bern), {case(1)} (group Oslo)" in said
    said = uncseg("prepare", file, "--set", "split.allow_shared_patients=true")
    assert "patients: 1 patient, by the pattern (BraTS-GLI)-" in said
    assert "as in sites.csv, a patient may be in several" in said


def test_nnunet_draws_the_same_folds_of_cases(of_sites):
    file = experiment(of_sites, "of_cases", {"folds": 2, "drawn": "cases"})
    said = uncseg("cross-validate", file, "--dry-run")
    assert "split:    2 folds, drawn with seed 12345, case by case as nnU-Net draws it" in said
    expected = generate_crossval_split([case(number) for number in range(5)], 12345, 2)
    written = [read_splits(path) for path in of_sites.glob("runs/prepared/*/nnUNet_preprocessed/*/splits_final.json")]
    assert expected in written


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["split.folds=5"], ["split.folds", "3 folds", "remove `split.folds`"]),
        (["split.seed=7"], ["split.seed", "remove `split.seed`"]),
        (["split.file=splits_final.json"], ["split.groups", "split.file as well"]),
        (["split.groups=absent.csv"], ["split.groups: absent.csv", "No such file"]),
        (["dataset.patients=(a", "split.groups=absent.csv"], ["dataset.patients", "absent.csv", "2 problems"]),
        (["dataset.patients=absent.csv"], ["dataset.patients: absent.csv"]),
    ],
)
def test_what_contradicts_is_refused(of_sites, settings, named):
    file = experiment(of_sites, "refused", {"groups": str(of_sites / "sites.csv")})
    arguments = [part for setting in settings for part in ("--set", setting)]
    said = " ".join(uncseg("cross-validate", file, "--dry-run", *arguments, code=2).split())
    for name in named:
        assert name in said
