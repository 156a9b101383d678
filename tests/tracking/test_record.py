"""What the manifest remembers of MLflow, as it lies on the disk."""

import json

import pytest

from uncseg.errors import ProblemsFound
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.record import MlflowRecord, RunDescription, RunEntry

PARENT = {"key": "k", "run_id": "abc", "pushed_epoch": 3, "status": "RUNNING", "files": {"tables/a.csv": [1, 2]}}


def test_a_record_is_read_as_it_was_written(run):
    update_manifest(run.manifest, digests={"split": "a"})
    record = MlflowRecord(
        "sqlite:///x.db", "uncseg", {"git_commit": "c"}, folds={0: RunEntry(attempt=2), 10: RunEntry()}
    )
    record.parent.set_final({"final/dice_wt": 0.1 + 0.2})
    record.parent.files["tables/a.csv"] = [1, 2]
    record.write(run.manifest)
    assert MlflowRecord.read(run.manifest) == record
    assert json.loads(run.manifest.read_text())["digests"] == {"split": "a"}


def test_keys_on_disk_are_the_names_of_the_fields(run):
    update_manifest(run.manifest, mlflow={"tracking_uri": "u", "parent": PARENT, "folds": {"3": {"attempt": 2}}})
    record = MlflowRecord.read(run.manifest)
    assert (record.tracking_uri, record.parent.run_id, record.parent.pushed_epoch) == ("u", "abc", 3)
    assert record.parent.files == PARENT["files"]
    assert {fold: entry.attempt for fold, entry in record.folds.items()} == {3: 2}


def test_without_a_manifest_the_record_is_empty_and_its_key_new(run):
    first, second = MlflowRecord.read(run.manifest), MlflowRecord.read(run.manifest)
    assert (first.parent.run_id, first.folds, first.parent.final) == ("", {}, {})
    assert first.parent.key != second.parent.key


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"mlflow": {"parent": ', "manifest.json"),
        ("[]", "manifest.json"),
        ('{"mlflow": {"parents": {}}}', "mlflow.parents"),
        ('{"mlflow": {"folds": {"0": {"pushed_epoch": "many"}}}}', "mlflow.folds.0.pushed_epoch"),
        ('{"mlflow": {"parent": {"id": "abc"}}}', "mlflow.parent.id"),
    ],
)
def test_a_torn_or_foreign_manifest_is_refused(run, text, where):
    run.root.mkdir(parents=True)
    run.manifest.write_text(text)
    with pytest.raises(ProblemsFound, match=str(run.manifest)) as caught:
        MlflowRecord.read(run.manifest)
    (problem,) = caught.value.problems
    assert problem.where.endswith(where)
    assert run.manifest.read_text() == text


def test_a_description_takes_name_params_and_dataset_from_the_experiment():
    experiment = {"name": "demo", "loss": {"unc_weight": 0.4}, "dataset": {"name": "Small", "path": "cases"}}
    described = RunDescription.from_experiment(experiment, "folder", {"git_commit": "c"})
    params = {"loss.unc_weight": "0.4", "dataset.name": "Small"}
    assert described == RunDescription("demo", params, {"git_commit": "c"}, ("Small", "cases"))
    assert RunDescription.from_experiment({}, "folder", {}) == RunDescription("folder", {}, {})
