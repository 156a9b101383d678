"""Real Ray clusters of several nodes for the tests, the command on them, and what becomes of a fold."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from ray.cluster_utils import Cluster
from ray.util import get_node_ip_address

from support.commands import Command, start_uncseg
from support.progress import start_with_retries
from support.servers import answers, free_port
from uncseg.tracking.spool import read_history


@contextlib.contextmanager
def cluster_of(*cpus):
    """Run a cluster of a head without CPUs and one node per entry of ``cpus``; yields (cluster, nodes)."""

    def start():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            return cluster, [cluster.add_node(num_cpus=n) for n in cpus]
        except BaseException:
            cluster.shutdown()
            raise

    cluster, nodes = start_with_retries("a Ray cluster", start)
    try:
        yield cluster, nodes
    finally:
        cluster.shutdown()


class RayHead:
    """A cluster as ``ray start --head`` makes it; the ``python`` of its jobs is this one.

    Args:
        cpus: of its first node.
        options: more options of the command.
        port: of its address; None: a free one.
        variables: environment variables of the command.
        before: what its command lines begin with.
    """

    def __init__(self, cpus, options, port, variables, before=()):
        bin_folder = Path(sys.executable).parent
        port, dashboard, agent = port or free_port(), free_port(), free_port()
        self.address = f"{get_node_ip_address()}:{port}"
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        # Ray's sockets lie in it, and their names may have 107 characters
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        command = [bin_folder / "ray", "start", "--head", "--block", "--num-cpus", cpus, "--temp-dir", self.folder]
        command += [*options, "--port", port, "--dashboard-port", dashboard, "--dashboard-host", "127.0.0.1"]
        # a second Ray on this machine would find the agent's usual port taken, and accept no jobs
        command += ["--dashboard-agent-listen-port", agent, "--disable-usage-stats"]
        # without a word Ray asks for the user's own token, where there is one
        own = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
        self.before, self.variables = before, own | variables
        self.nodes = []
        self.command = Command(command, self.folder / "start.log", before=before, variables=self.variables)
        try:
            self.command.wait_until(lambda: answers(f"{self.dashboard}/api/version"))
        except BaseException:
            self.stop()
            raise

    def join(self, cpus):
        """Add a node by ``ray start --address``, wait until the cluster has it, and return its command."""
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--address", self.address]
        command += ["--num-cpus", cpus, "--dashboard-agent-listen-port", free_port(), "--disable-usage-stats"]
        log, known = self.folder / f"node_{len(self.nodes)}.log", len(raylets(self.folder))
        self.nodes.append(Command(command, log, before=self.before, variables=self.variables))
        self.nodes[-1].wait_until(lambda: len(raylets(self.folder)) > known and "runtime started" in log.read_text())
        return self.nodes[-1]

    def stop(self):
        """Kill all its processes and remove its folder."""
        commands = [command for command in (self.command, *self.nodes) if command.is_running()]
        below = [process for command in commands for process in psutil.Process(command.pid).children(recursive=True)]
        for command in commands:
            command.kill()
        for process in [*below, *processes_naming(self.folder)]:  # some outlive the command that started them
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def processes_naming(folder):
    """Return the processes whose command line names a folder, as those of a cluster name its own."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def raylets(folder):
    """Return the raylets that run now of the cluster with this folder, the oldest first."""
    found = [process for process in processes_naming(folder) if Path(process.info["cmdline"][0]).name == "raylet"]
    return sorted(found, key=lambda process: process.create_time())


def ray_workers(folder, *names):
    """Return the workers of a cluster that are in an actor or a task of one of these names now."""
    found = []
    for raylet in raylets(folder):
        with contextlib.suppress(psutil.Error):
            for worker in raylet.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if (worker.cmdline() or [""])[0].startswith(tuple(f"ray::{name}" for name in names)):
                        found.append(worker)
    return found


@contextlib.contextmanager
def ray_start(cpus, *options, port=None, **variables):
    """Run a cluster that takes jobs; yields its :class:`RayHead`."""
    head = start_with_retries("ray start", lambda: RayHead(cpus, options, port, variables))
    try:
        yield head
    finally:
        head.stop()


AUTOSCALING = {
    "cluster_name": "test",
    "max_workers": 3,
    # Ray's own provider for tests: each node is a raylet on this machine, and there is no shell to set it up
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
    # the parts of a cluster file that say how machines are set up are empty here
    **{part: {} for part in ("auth", "docker", "file_mounts")},
    **{part: [] for part in ("cluster_synced_files", "initialization_commands", "rsync_exclude", "rsync_filter")},
    **{f"{kind}setup_commands": [] for kind in ("", "head_", "worker_")},
    **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
}


@contextlib.contextmanager
def autoscaling_cluster(folder):
    """Run a head without CPUs whose autoscaler adds up to two nodes of one CPU."""
    port = free_port()
    provider = AUTOSCALING["provider"] | {"gcs_address": f"{get_node_ip_address()}:{port}"}
    file = Path(folder, "cluster.json")  # JSON is YAML
    file.write_text(json.dumps(AUTOSCALING | {"provider": provider}), encoding="utf-8")
    variables = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with ray_start(0, f"--autoscaling-config={file}", port=port, **variables) as started:
        yield started


def lose(cluster, node):
    """Kill a node and what runs on it, without a word to the others."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    workers = raylet.children(recursive=True)
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


def on_cluster(cluster, file, *more):
    """Start ``uncseg cross-validate`` on the cluster; its log is beside the experiment."""
    log = file.with_suffix(f".{time.monotonic_ns()}.log")
    return start_uncseg("cross-validate", file, "--set", f"resources.ray_address={cluster.address}", *more, log=log)


def last_epoch(run, fold):
    """Return the last epoch in a fold's spool; -1 where there is none."""
    history = read_history(run / "spool", fold)
    return history.last_epoch if history.epochs else -1


def worker_with(folder, part):
    """Return the worker of a cluster that holds a file open whose path has ``part`` in it; None where there is none.

    Unlike :func:`worker_of` this finds workers that see another disk than this process.
    """
    for worker in ray_workers(folder, ""):
        with contextlib.suppress(psutil.Error, OSError):
            for link in Path(f"/proc/{worker.pid}/fd").iterdir():
                if part in str(link.readlink()):
                    return worker
    return None


def worker_of(run, fold):
    """Return the process that trains a fold, which holds its console log open; None where there is none."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error, OSError):
            if not (process.info["cmdline"] or [""])[0].startswith("ray::"):
                continue
            for file in process.open_files():
                if file.path.startswith(str(run)) and f"/fold_{fold}/console" in file.path:
                    return process
    return None


def node_of(process, nodes):
    """Return the node whose raylet started a worker."""
    above = {parent.pid for parent in process.parents()}
    return next(node for node in nodes if node.all_processes["raylet"][0].process.pid in above)


def hashes(run, fold):
    """Return the SHA-256 of weights, optimiser and memory at the end of a fold."""
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
