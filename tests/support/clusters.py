"""Real Ray clusters of several nodes for the tests, the command on them, and what becomes of a fold."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from ray.cluster_utils import Cluster
from ray.util import get_node_ip_address

from support.commands import environment, start_uncseg
from support.servers import answers, free_port
from uncseg.tracking.spool import read_history

LIMIT_S = 400


@contextlib.contextmanager
def cluster_of(*cpus):
    """A head without CPUs and a node for each of ``cpus``; (cluster, nodes)."""
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, [cluster.add_node(num_cpus=n) for n in cpus]
    finally:
        cluster.shutdown()


@contextlib.contextmanager
def ray_start(cpus, *more, port=None, **variables):
    """A cluster as ``ray start --head`` makes it; its address, dashboard and folder. Jobs' python is this one.

    ``more`` options and environment variables go to the command.
    """
    bin_folder = Path(sys.executable).parent
    ports = [port or free_port(), free_port(), free_port()]
    # Ray's sockets lie in it, and their names may have 107 characters
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [bin_folder / "ray", "start", "--head", "--block", "--num-cpus", cpus, "--temp-dir", folder, *more]
        command += ["--port", ports[0], "--dashboard-port", ports[1], "--dashboard-host", "127.0.0.1"]
        # a second Ray on this machine would find the agent's usual port taken, and accept no jobs
        command += ["--dashboard-agent-listen-port", ports[2], "--disable-usage-stats"]
        paths = environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"} | variables
        with Path(folder, "start.log").open("w") as log:
            process = subprocess.Popen(list(map(str, command)), env=paths, stdout=log, stderr=log)
        address, dashboard = f"{get_node_ip_address()}:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        try:
            while not answers(f"{dashboard}/api/version"):
                assert process.poll() is None, Path(folder, "start.log").read_text()
                time.sleep(0.1)
            yield SimpleNamespace(address=address, dashboard=dashboard, folder=Path(folder))
        finally:
            below = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for left in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()


AUTOSCALING = {
    "cluster_name": "test",
    "max_workers": 3,
    # Ray's own, for its tests: each node a real raylet on this machine, without a shell to set it up through
    "provider": {
        "type": "fake_multinode",
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "worker_liveness_check": False,
    },
    "idle_timeout_minutes": 5,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "upscaling_speed": 1.0,
    "file_mounts_sync_continuously": False,
    # the parts of a cluster file that say how to set machines up: there is nothing to set up
    **{part: {} for part in ("auth", "docker", "file_mounts")},
    **{part: [] for part in ("cluster_synced_files", "initialization_commands", "rsync_exclude", "rsync_filter")},
    **{f"{of}setup_commands": [] for of in ("", "head_", "worker_")},
    **{f"{of}_start_ray_commands": [] for of in ("head", "worker")},
}


@contextlib.contextmanager
def autoscaling_cluster(folder):
    """A head without CPUs whose autoscaler adds up to two nodes of a CPU."""
    port = free_port()
    provider = AUTOSCALING["provider"] | {"gcs_address": f"{get_node_ip_address()}:{port}"}
    file = Path(folder, "cluster.json")  # JSON is YAML
    file.write_text(json.dumps(AUTOSCALING | {"provider": provider}), encoding="utf-8")
    variables = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with ray_start(0, f"--autoscaling-config={file}", port=port, **variables) as started:
        yield started


def lose(cluster, node):
    """The node is gone without a word, and what ran on it."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    workers = raylet.children(recursive=True)
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


def on_cluster(cluster, file, *more):
    """``uncseg cross-validate`` on the cluster, running; its output is beside the experiment."""
    log = file.with_suffix(f".{time.monotonic_ns()}.log")
    process = start_uncseg("cross-validate", file, "--set", f"resources.ray_address={cluster.address}", *more, log=log)
    process.log = log
    return process


def end_of(process):
    """The exit code; what it printed where it did not end in time."""
    try:
        return process.wait(LIMIT_S)
    finally:
        if process.poll() is None:
            print(process.log.read_text()[-3000:])
            process.kill()


def wait_until(condition, process):
    """Observation until it is so; an error where the command ends before."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert process.poll() is None, process.log.read_text()[-3000:]
        assert time.monotonic() < deadline, process.log.read_text()[-3000:]
        time.sleep(0.02)  # leaves the cores to the training
    return found


def last_epoch(run, fold):
    """Of the fold's spool; below 0 where there is none."""
    history = read_history(run / "spool", fold)
    return history.last_epoch if history.epochs else -1


def worker_of(run, fold):
    """The process that trains a fold: the one that holds its console log open."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error, OSError):
            if not (process.info["cmdline"] or [""])[0].startswith("ray::"):
                continue
            for file in process.open_files():
                if file.path.startswith(str(run)) and f"/fold_{fold}/console" in file.path:
                    return process
    return None


def node_of(process, nodes):
    """The node whose raylet started a worker."""
    above = {parent.pid for parent in process.parents()}
    return next(node for node in nodes if node.all_processes["raylet"][0].process.pid in above)


def kill_command(process):
    """SIGKILL to the command and nothing else: the cluster lives on."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def hashes(run, fold):
    """SHA-256 of weights, optimiser and memory at the end of a fold."""
    (checkpoint,) = Path(run).rglob(f"fold_{fold}/checkpoint_final.pth")
    content = torch.load(checkpoint, weights_only=False)
    (resume,) = checkpoint.parent.glob("resume_epoch_*.pt")
    memories = torch.load(resume, weights_only=True)["memories"]
    parts = {"weights": content["network_weights"], "optimiser": content["optimizer_state"], "memory": memories}
    return {name: hashlib.sha256(repr(list(_flatten(part))).encode()).hexdigest() for name, part in parts.items()}


def _flatten(content):
    if isinstance(content, dict):
        for key in sorted(content, key=str):
            yield key
            yield from _flatten(content[key])
    elif isinstance(content, list | tuple):
        for part in content:
            yield from _flatten(part)
    elif isinstance(content, torch.Tensor):
        yield hashlib.sha256(content.contiguous().numpy().tobytes()).hexdigest()
    else:
        yield content
