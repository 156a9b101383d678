"""Faults at random over a run of three folds, its evaluation and a prediction: at the end every bit is the same."""

import json
import shutil
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from mlflow import MlflowClient

from performance.compare_runs import differences
from support.clusters import hashes, worker_with
from support.faults import Machine, Soak, Work, truncate
from support.servers import MlflowServer
from support.small_disk import small_disk
from support.small_experiment import write_small_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.layout import RunFolder
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.spool import fold_file, read_history, read_records

FOLDS, EPOCHS, CASES = 3, 12, 6
TRAINING = {"epochs": EPOCHS, "iterations_per_epoch": 5, "val_iterations_per_epoch": 1, "checkpoint_every": 1}
INTERVALS = {
    "worker": 1,
    "raylet": 1,
    "driver": 1,
    "SIGTERM": 1,
    "full disk": 1,
    "MLflow server": 0,
    "truncated file": 2,
}
"""How many checkpoint intervals a fault may cost a fold; beside a truncated checkpoint its worker is killed."""
TABLES = ("per_case", "per_region", "scores", "scores_summary", "table1", "table2", "table3", "table4", "epochs")
MEASURED = ("system/", "time_ms", "attempt")
"""How columns begin that tell the machine or the attempt and not the training."""
PREDICTING = ("read_case", "predict_case", "write_case")


class Place:
    """Where one soak, or the undisturbed run, keeps its results; paths as the commands see them."""

    def __init__(self, machine, root, name):
        self.machine, self.root, self.name = machine, root, name
        inside, seen = machine.disk.folder / name, machine.disk.seen / name
        self.run, self.predictions = RunFolder(seen / "small"), seen / "new"
        tracking = {"uri": machine.server.uri, "experiment": name}
        sections = {"split": {"folds": FOLDS}, "training": TRAINING, "evaluation": {"last_epochs": 3}}
        self.file = write_small_experiment(
            root,
            f"{name}.yaml",
            storage={"path": str(inside)},
            resources={"cpus_per_fold": 1},
            tracking=tracking,
            **sections,
        )
        self.train = "cross-validate", self.file
        self.evaluate = "evaluate", inside / "small"
        self.predict = "predict", inside / "small", root / "cohort", inside / "new"
        self.sync = "sync", inside / "small"

    def epochs(self):
        """How many epochs the folds have recorded, and how many cases were evaluated."""
        files = (fold_file(self.run.spool, fold) for fold in range(FOLDS))
        written = sum(file.read_bytes().count(b'"kind": "epoch"') for file in files if file.is_file())
        return written + records(self.run.out_of_fold)

    def damage_training(self, choice):
        """Truncate a prepared case, or the newest checkpoint of a fold that has a whole one before it."""
        found = sorted(file for file in self.run.root.rglob("checkpoint_latest.pth") if is_whole(file))
        found = [file for file in found if is_whole(file.with_name("checkpoint_previous.pth"))]
        if not found or choice.random() < 0.3:
            prepared = self.run.root.parent / "prepared"
            files = sorted([*prepared.rglob("*.b2nd"), *prepared.rglob("*.pkl")])
            return truncate(choice.choice(files), choice) if files else ""
        file = choice.choice(found)
        worker = worker_with(self.machine.cluster.folder, f"{self.name}/small/{file.parent.relative_to(self.run.root)}")
        if worker is None:
            return ""
        what = truncate(file, choice)
        worker.kill()  # which reads it when it starts again
        return f"{what} of {file.parent.name}, and its worker is killed"

    def damage(self, *folders):
        """Return a function that truncates a result in one of these folders."""

        def damage_result(choice):
            files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
            files = sorted(file for file in files if file.stat().st_size and not file.name.startswith("."))
            return truncate(choice.choice(files), choice) if files else ""

        return damage_result

    def works(self):
        """Return the three commands and how they are disturbed."""
        run, evaluating = self.run, ("evaluate_case",)

        def evaluate_again():
            for folder in (run.out_of_fold, run.tables):
                shutil.rmtree(folder, ignore_errors=True)

        def predict_again():
            shutil.rmtree(self.predictions, ignore_errors=True)

        training = Work(
            self.train, self.epochs, 4, ("RayTrainWorker", *evaluating), self.damage_training, evaluate_again
        )
        evaluated, results = lambda: records(run.out_of_fold), self.damage(run.out_of_fold, run.tables)
        predicted = lambda: records(self.predictions)  # noqa: E731
        return [
            training,
            Work(self.evaluate, evaluated, 3, evaluating, results, evaluate_again),
            Work(self.predict, predicted, 2, PREDICTING, self.damage(self.predictions), predict_again),
        ]


def is_whole(checkpoint):
    """Whether a zip file has its end; one that is truncated has not."""
    try:
        with checkpoint.open("rb") as stream:
            return b"PK\x05\x06" in stream.read()[-1024:]
    except OSError:
        return False


def records(folder):
    """Return how many cases are finished."""
    return len([file for file in folder.glob("*.json") if not file.name.startswith(".")])


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    root = tmp_path_factory.mktemp("soak")
    with small_disk(root / "disk", "600m") as disk:
        machine = Machine(disk, MlflowServer(root, root / "mlflow.db"), cpus=2)
        try:
            machine.repair()
            yield machine
        finally:
            machine.stop_cluster()
            machine.server.kill()


@pytest.fixture(scope="module")
def undisturbed(machine, tmp_path_factory):
    """Where the same commands have worked without a fault; another place of the same cases by name."""
    root = tmp_path_factory.mktemp("work")
    write_phantoms(root / "cases", cases=CASES, size=28, seed=0, task=paper_task())
    write_phantoms(root / "cohort", cases=4, size=28, seed=7, task=paper_task())
    place, soak = Place(machine, root, "undisturbed"), Soak(machine, 0, root)
    for arguments in (place.train, place.predict):
        soak.undisturbed(*arguments)
    assert_same_results(place, place)
    assert_mlflow_has_everything_once(place)
    return place


def images(folder):
    """Return the voxels of all images in a folder, by name."""
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in folder.glob("*.nii.gz")}


def assert_same_images(folder, expected):
    ours, theirs = images(folder), images(expected)
    assert theirs
    assert sorted(ours) == sorted(theirs)
    for name, voxels in ours.items():
        assert voxels.dtype == theirs[name].dtype
        assert np.array_equal(voxels, theirs[name], equal_nan=voxels.dtype.kind == "f"), name


def assert_same_table(file, expected):
    ours, theirs = (
        frame.loc[:, [name for name in frame.columns if not name.startswith(MEASURED) and "seconds" not in name]]
        for frame in map(pd.read_parquet, (file, expected))
    )
    assert len(theirs)
    assert not differences(ours, theirs), file.name


def assert_same_results(place, expected):
    """Check weights, optimisers, memories, tables, maps and predictions."""
    for fold in range(FOLDS):
        assert hashes(place.run.root, fold) == hashes(expected.run.root, fold)
    for name in TABLES:
        assert_same_table(place.run.tables / f"{name}.parquet", expected.run.tables / f"{name}.parquet")
    assert_same_table(place.predictions / "predictions.parquet", expected.predictions / "predictions.parquet")
    assert_same_images(place.run.out_of_fold, expected.run.out_of_fold)
    assert_same_images(place.predictions, expected.predictions)
    assert not list(place.machine.disk.seen.rglob(".part-*"))


def assert_each_once(name, rows):
    """Check that a metric has one row per step; a final figure has one per value: cases may have been missing once."""
    found = [(row.step, row.value) if name.startswith("final/") else row.step for row in rows]
    assert len(set(found)) == len(found), name


def assert_mlflow_has_everything_once(place):
    """Check that each metric of each fold has one row per epoch, with the spool's value."""
    client = MlflowClient(f"sqlite:///{place.machine.server.folder}/mlflow.db")
    experiment = client.get_experiment_by_name(place.name)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    folds = {int(run.data.params["fold"]): run for run in runs if run is not parent}
    assert sorted(folds) == list(range(FOLDS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for fold, run in folds.items():
        history = read_history(place.run.spool, fold)
        assert sorted(history.epochs) == list(range(EPOCHS))
        for name in run.data.metrics:
            rows = client.get_metric_history(run.info.run_id, name)
            assert_each_once(name, rows)
            if name in history.epochs[EPOCHS - 1].metrics:
                told = {row.step: row.value for row in rows}
                known = {e: record.metrics[name] for e, record in history.epochs.items() if name in record.metrics}
                assert told == pytest.approx({e: value for e, value in known.items() if np.isfinite(value)}), name
    for name in parent.data.metrics:
        rows = client.get_metric_history(parent.info.run_id, name)
        assert_each_once(name, rows)
    steps = sorted(row.step for row in client.get_metric_history(parent.info.run_id, "train/loss"))
    assert steps == list(range(EPOCHS))


def epochs_lost(place, faults):
    """Return how many epochs each fold trained again; fail where a fault has cost more than one checkpoint interval."""
    lost = Counter()
    for fold in range(FOLDS):
        known, begun_ms = -1, 0
        for record in read_records(fold_file(place.run.spool, fold))[0]:
            if record["kind"] == "epoch":
                known = record["epoch"]
            if record["kind"] == "attempt":
                again = known + 1 - record["first_epoch"]
                between = [f for f in faults if begun_ms < f.until_ms and f.from_ms <= record["time_ms"]]
                allowed = sum(INTERVALS[f.kind] for f in between) * TRAINING["checkpoint_every"]
                assert again <= allowed, f"fold {fold}: {again} epochs again after {between}"
                lost[fold] += again
                known, begun_ms = record["first_epoch"] - 1, record["time_ms"]
    return lost


def soak(machine, undisturbed, seed, number, root):
    """Disturb the three commands by a number of faults, and compare what is there at the end."""
    began = time.monotonic()
    place = Place(machine, undisturbed.root, f"seed_{seed}")
    soak = Soak(machine, seed, root)
    kinds = soak.kinds(number)
    few = max(1, number // 5)
    for work, part in zip(place.works(), (kinds[2 * few :], kinds[:few], kinds[few : 2 * few]), strict=True):
        soak.run(work, part)
    for arguments in (place.train, place.evaluate, place.predict, place.sync):
        soak.undisturbed(*arguments)
    lost = epochs_lost(place, soak.done)
    ends = Counter(f"{name.partition('_')[2]} {code}" for name, code in soak.ends)
    print(f"seed {seed}: {len(soak.done)} faults in {time.monotonic() - began:.0f} s", *soak.table(), sep="\n")
    print(f"commands and their exit codes: {dict(ends)}; epochs trained again: {lost.total()} of {FOLDS * EPOCHS}")
    print(json.dumps({"seed": seed, "faults": [vars(fault) for fault in soak.done]}))
    assert_same_results(place, undisturbed)
    assert_mlflow_has_everything_once(place)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_faults_change_no_bit(machine, undisturbed, seed, tmp_path):
    soak(machine, undisturbed, seed, 10, tmp_path)
