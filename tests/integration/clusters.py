"""Real Ray clusters of several nodes for the tests, the command on them, and what becomes of a fold."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from ray.cluster_utils import Cluster

from commands import environment, start_uncseg
from servers import answers, free_port
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
def ray_start(cpus):
    """A cluster as ``ray start --head`` makes it; (address of its dashboard, its folder). Jobs' python is this one."""
    bin_folder = Path(sys.executable).parent
    ports = [free_port() for _ in range(3)]
    # Ray's sockets lie in it, and their names may have 107 characters
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [bin_folder / "ray", "start", "--head", "--block", "--num-cpus", cpus, "--temp-dir", folder]
        command += ["--port", ports[0], "--dashboard-port", ports[1], "--dashboard-host", "127.0.0.1"]
        # a second Ray on this machine would find the agent's usual port taken, and accept no jobs
        command += ["--dashboard-agent-listen-port", ports[2], "--disable-usage-stats"]
        paths = environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
        with Path(folder, "start.log").open("w") as log:
            process = subprocess.Popen(list(map(str, command)), env=paths, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{ports[1]}"
        try:
            while not answers(f"{address}/api/version"):
                assert process.poll() is None, Path(folder, "start.log").read_text()
                time.sleep(0.1)
            yield address, Path(folder)
        finally:
            below = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for left in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()


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
    """Look until it is so; an error where the command ends before."""
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
