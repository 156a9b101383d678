"""Nodes, commands and heads of a real cluster die; every bit of the end is that of an undisturbed run."""

import psutil
import pytest
from mlflow import MlflowClient

from support.clusters import (
    cluster_of,
    hashes,
    last_epoch,
    lose,
    node_of,
    on_cluster,
    ray_start,
    worker_of,
)
from support.commands import run_uncseg
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

EPOCHS = 60


@pytest.fixture
def experiment(four_cases, experiment_file):
    training = {"epochs": EPOCHS, "iterations_per_epoch": 10, "checkpoint_every": 4}
    return experiment_file(four_cases, training=training, resources={"cpus_per_fold": 1})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function that returns the hashes of both folds of an undisturbed run of an experiment file, on a local Ray."""
    root = tmp_path_factory.mktemp("undisturbed")
    results = {}

    def hashes_by_fold(file):
        if not results:
            run_uncseg("cross-validate", file, "--set", f"storage.path={root}", folder=root)
            results.update({fold: hashes(root / "small", fold) for fold in range(2)})
        return results

    return hashes_by_fold


def assert_like(undisturbed, run, root):
    for fold in range(2):
        assert hashes(run, fold) == undisturbed[fold]
        assert sorted(read_history(run / "spool", fold).epochs) == list(range(EPOCHS))
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    (mlflow_experiment,) = [e for e in client.search_experiments() if e.name == "uncseg"]
    children = [
        found
        for found in client.search_runs([mlflow_experiment.experiment_id])
        if "mlflow.parentRunId" in found.data.tags
    ]
    assert len(children) == 2
    for child in children:
        steps = [metric.step for metric in client.get_metric_history(child.info.run_id, "train/loss")]
        assert sorted(steps) == list(range(EPOCHS))


def test_a_lost_node_costs_its_fold_one_interval_and_no_other_anything(experiment, tmp_path, undisturbed):
    expected, run = undisturbed(experiment), tmp_path / "runs/small"
    with cluster_of(1, 1, 1) as (cluster, nodes):
        process = on_cluster(cluster, experiment)
        process.wait_until(lambda: min(last_epoch(run, fold) for fold in range(2)) >= 5)
        lost = node_of(worker_of(run, 0), nodes)
        assert lost is not node_of(worker_of(run, 1), nodes)
        lose(cluster, lost)
        reached, other = last_epoch(run, 0), last_epoch(run, 1)
        process.wait_until(lambda: read_history(run / "spool", 0).attempt == 2)
        # the other went on while this one was away
        assert last_epoch(run, 1) > other
        assert read_history(run / "spool", 0).first_epochs[2] > reached - 4
        assert node_of(worker_of(run, 0), [node for node in nodes if node is not lost]) is not lost
        process.require()
    assert read_history(run / "spool", 1).attempt == 1
    assert_like(expected, run, tmp_path / "runs")


def test_a_node_lost_while_it_is_checked_refuses_nothing(experiment, tmp_path):
    with cluster_of(2, 1) as (cluster, nodes):
        process = on_cluster(cluster, experiment, "--dry-run")
        process.wait_until(lambda: list((tmp_path / "runs").glob(".preflight-*/driver")))
        lose(cluster, nodes[1])
        process.require()


def test_a_killed_command_with_damaged_files_goes_on(experiment, tmp_path, undisturbed):
    expected, run = undisturbed(experiment), tmp_path / "runs/small"
    with cluster_of(2) as (cluster, _):
        process = on_cluster(cluster, experiment)
        process.wait_until(lambda: min(last_epoch(run, fold) for fold in range(2)) >= 10)
        process.kill()
        while any(worker_of(run, fold) for fold in range(2)):
            pass  # Ray ends them a moment later; until then they may write another checkpoint
        reached = last_epoch(run, 0)
        (latest,) = run.rglob("fold_0/checkpoint_latest.pth")
        latest.write_bytes(latest.read_bytes()[:1000])
        (other,) = run.rglob("fold_1/checkpoint_latest.pth")
        content = bytearray(other.read_bytes())
        content[len(content) // 2] ^= 0x40  # PyTorch would read another weight
        other.write_bytes(content)
        for snapshot in (run / "ray").rglob("*.json"):
            snapshot.write_bytes(snapshot.read_bytes()[:20])
        again = on_cluster(cluster, experiment)
        again.require()
    history = read_history(run / "spool", 0)
    assert history.attempt == 2
    assert reached - 8 <= history.first_epochs[2] <= reached - 4 + 4
    assert latest.with_suffix(".damaged").is_file()
    assert other.with_suffix(".damaged").is_file()
    assert_like(expected, run, tmp_path / "runs")


def test_a_head_that_died_is_forgotten_by_the_next(experiment, tmp_path, undisturbed):
    expected, run = undisturbed(experiment), tmp_path / "runs/small"
    with cluster_of(2) as (cluster, (node,)):
        process = on_cluster(cluster, experiment)
        process.wait_until(lambda: min(last_epoch(run, fold) for fold in range(2)) >= 6)
        cluster.head_node.kill_gcs_server(check_alive=False)
        lose(cluster, node)
        lose(cluster, cluster.head_node)
        assert process.end() != 0
    with cluster_of(2) as (cluster, _):
        again = on_cluster(cluster, experiment)
        again.require()
    assert_like(expected, run, tmp_path / "runs")


def test_a_node_without_memory_costs_an_interval(experiment, tmp_path, undisturbed):
    room, block = 5 * 2**30, 2**26
    if psutil.virtual_memory().available < room + 2**31:
        pytest.skip("needs 7 GiB of free memory")
    expected, run = undisturbed(experiment), tmp_path / "runs/small"
    memory = psutil.virtual_memory()
    limit = 1 - (memory.available - room) / memory.total
    with ray_start(2, RAY_memory_usage_threshold=str(limit), RAY_memory_monitor_refresh_ms="100") as cluster:
        process = on_cluster(cluster, experiment)
        process.wait_until(lambda: min(last_epoch(run, fold) for fold in range(2)) >= 5)
        workers = [worker_of(run, fold) for fold in range(2)]
        ballast = []
        # a killed worker takes seconds to go: a restart that still meets the ballast would be killed too
        words = cluster.folder / "session_latest/logs/raylet.out"
        while all(worker.is_running() for worker in workers) and "OOM kill reason" not in words.read_text():
            assert process.is_running(), process.describe()
            now = psutil.virtual_memory()
            if 1 - now.available / now.total < limit + 0.02:
                ballast.append(b"x" * block)
        reached = [last_epoch(run, fold) for fold in range(2)]
        ballast.clear()
        process.require()
    histories = [read_history(run / "spool", fold) for fold in range(2)]
    assert max(history.attempt for history in histories) >= 2
    for history, epoch in zip(histories, reached, strict=True):
        assert all(first > epoch - 4 for attempt, first in history.first_epochs.items() if attempt > 1)
    assert_like(expected, run, tmp_path / "runs")
