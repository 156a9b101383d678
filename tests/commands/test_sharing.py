"""How a cluster is shared: late nodes, shares of a GPU, two experiments at once, storage that a node cannot see."""

import json
import os
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from support.clusters import (
    autoscaling_cluster,
    cluster_of,
    last_epoch,
    on_cluster,
)
from support.commands import Command, run_uncseg, start_uncseg
from uncseg.tracking.spool import fold_file, read_history, read_records

pytestmark = pytest.mark.slow


@pytest.fixture
def experiment(four_cases, experiment_file):

    def write(epochs=6, **sections):
        training = {"epochs": epochs, "iterations_per_epoch": 10}
        return experiment_file(four_cases, training=training, **sections)

    return write


def span(run, fold):
    records, _ = read_records(fold_file(run / "spool", fold))
    times = {record.get("state"): record["time_ms"] for record in records if record["kind"] == "state"}
    return times["running"], times["finished"]


def test_a_node_that_comes_while_a_fold_waits_takes_it(experiment, tmp_path):
    file, run = experiment(epochs=80, resources={"cpus_per_fold": 1}), tmp_path / "runs/small"
    with cluster_of(1) as (cluster, _):
        process = on_cluster(cluster, file)
        process.wait_until(lambda: max(last_epoch(run, fold) for fold in range(2)) >= 3)
        cluster.add_node(num_cpus=1)
        process.require()
    assert "1 side by side" in process.output
    first, second = sorted(span(run, fold) for fold in range(2))
    assert second[0] < first[1]  # side by side after all


def test_a_slot_that_a_quick_fold_leaves_is_taken_at_once(experiment, tmp_path):
    resources = {"cpus_per_fold": 1, "folds_at_once": 2}
    file = experiment(epochs=80, split={"folds": 3}, resources=resources)
    run = tmp_path / "runs/small"
    first = start_uncseg("cross-validate", file, "--folds", "0", log=tmp_path / "first.log")
    first.wait_until(lambda: last_epoch(run, 0) >= 70)
    first.kill()  # fold 0 has little left to do: it is the quick one
    run_uncseg("cross-validate", file, folder=tmp_path)
    (_, quick_end), (_, slow_end), (third_begin, _) = (span(run, fold) for fold in range(3))
    assert quick_end < third_begin < slow_end


def test_an_autoscaler_adds_the_nodes_that_folds_wait_for(experiment, tmp_path):
    # it is found on the head: without what it may add, the folds could never be placed
    file, run = experiment(epochs=40, resources={"cpus_per_fold": 1}), tmp_path / "runs/small"
    with autoscaling_cluster(tmp_path) as cluster:
        process = on_cluster(cluster, file)
        process.require()
    assert "2 side by side (0 on the present nodes" in process.words
    first, second = sorted(span(run, fold) for fold in range(2))
    assert second[0] < first[1]


def test_two_experiments_with_half_a_gpu_a_fold_side_by_side(experiment, tmp_path):
    # Ray counts the GPU; without a real one the folds compute on the CPU
    with cluster_of() as (cluster, _):
        cluster.add_node(num_cpus=2, num_gpus=1)
        processes = []
        for name in ("one", "two"):
            file = experiment(resources={"gpus_per_fold": 0.5, "cpus_per_fold": 0.5}, name=name)
            file = file.rename(tmp_path / f"{name}.yaml")
            processes.append(on_cluster(cluster, file))
        for process in processes:
            process.require()
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (found,) = [e for e in client.search_experiments() if e.name == "uncseg"]
    parents = [run for run in client.search_runs([found.experiment_id]) if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.info.run_name for run in parents) == ["one", "two"]
    for name in ("one", "two"):
        run = tmp_path / "runs" / name
        assert [read_history(run / "spool", fold).attempt for fold in range(2)] == [1, 1]
        assert (run / "tables" / "table2.csv").is_file()
        manifest = json.loads((run / "manifest.json").read_text())
        assert len(manifest["mlflow"]["folds"]) == 2


def test_a_second_command_for_the_same_folds_is_refused(experiment, tmp_path):
    file, run = experiment(epochs=40, resources={"cpus_per_fold": 1}), tmp_path / "runs/small"
    with cluster_of(2) as (cluster, _):
        first = on_cluster(cluster, file)
        first.wait_until(lambda: last_epoch(run, 0) >= 1)
        second = on_cluster(cluster, file)
        second.require(2)
        assert "another command at work" in second.words
        first.require()


@pytest.fixture
def blind_node(tmp_path):
    """A function that adds a node to a cluster on which an empty disk hides this test's folder."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        started = []

        def start(cluster):
            ray = Path(sys.executable).with_name("ray")
            join = f"{ray} start --address {cluster.address} --num-cpus 1 --block"
            command = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {tmp_path} && exec {join}"]
            started.append(Command(command, Path(folder, "log"), [folder]))
            return started[0]

        yield start
        for node in started:
            below = psutil.Process(node.pid).children(recursive=True) if node.is_running() else []
            for process in below:
                process.kill()
            node.kill()


def test_storage_that_a_node_does_not_see_is_told_before_anything_runs(experiment, tmp_path, blind_node):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    file = experiment(resources={"cpus_per_fold": 1})
    with cluster_of(1) as (cluster, _):
        node = blind_node(cluster)
        node.wait_until(lambda: len(cluster.global_state.node_table()) == 3)
        process = on_cluster(cluster, file, "--dry-run")
        process.require(2)
    text = process.words
    assert "The run would fail. (2 problems)" in text
    assert "dataset.path" in text
    assert not (tmp_path / "runs/small").exists()
