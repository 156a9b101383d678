"""Checks that every node of a cluster sees the same folders and has the same packages."""

import importlib
import shutil
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uncseg.cluster.session import under_ray_job
from uncseg.errors import Problem
from uncseg.provenance import describe_versions

ANSWER_S = 180  # importing torch and nnU-Net from a slow network file system takes a minute
SAME_STORAGE = "the same storage on every node"


def check_folders(writes: Mapping[str, Path], reads: Mapping[str, Path], module: str, own_ray: bool) -> list[Problem]:
    """Check that every node sees the folders and can import what it needs.

    A file written here must be readable on each node, and the other way round. The nodes are asked only if all paths
    are valid there.

    Args:
        writes, reads: folders that are written to or only read, by the names that the user knows them under.
        module: name of a module that every node must be able to import.
        own_ray: Ray was started by this command; its one node is this machine.
    """
    problems = relative_path_problems({**reads, **writes})
    if problems or own_ray:
        return problems
    reads = {name: path.resolve() for name, path in reads.items()}
    return [p for name, path in writes.items() for p in _check_storage(name, path.resolve(), reads, module)]


def relative_path_problems(paths: Mapping[str, Path]) -> list[Problem]:
    """Return a problem per relative path of a Ray job: its working directory is a copy that is removed when it ends."""
    expected, advice = "an absolute path on storage that every node sees", "give the absolute path"
    return [
        Problem(name, str(path), expected, f"add --set {name}=/…" if "." in name else advice)
        for name, path in paths.items()
        if under_ray_job() and not path.is_absolute()
    ]


def _check_storage(name: str, storage: Path, reads: Mapping[str, Path], module: str) -> list[Problem]:
    token = uuid.uuid4().hex
    folder = storage / f".preflight-{token}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return [Problem(name, f"{storage}: {error.strerror}", "a writable folder", "give another folder")]
    try:
        (folder / "driver").write_text(token, encoding="utf-8")
        return _ask_nodes(folder, token, {name: str(path) for name, path in reads.items()}, module)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ask_nodes(folder: Path, token: str, reads: Mapping[str, str], module: str) -> list[Problem]:
    remote = ray.remote(num_cpus=0, max_retries=1)(check_node)
    nodes = _living_nodes()
    versions = _required_versions()
    answers = {}
    for node in nodes:
        there = remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        answers[node] = there.remote(str(folder), node, token, reads, module, versions)
    timeout = _timeout_s()
    ray.wait(list(answers.values()), num_returns=len(answers), timeout=timeout)
    problems: list[Problem] = []
    for node, answer in answers.items():
        where = f"node {nodes[node]} ({node[:8]})"
        try:
            found = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            found = [(f"no answer within {timeout:g} s", "a worker that starts", "read its logs: ray logs")]
        except ray.exceptions.RayError as error:
            if node not in _living_nodes():
                continue  # lost since it was asked: nothing will be placed there
            found = [(str(error).strip().splitlines()[-1], "a worker that starts", "read its logs: ray logs")]
        problems += [Problem(where, *parts) for parts in found]
        if not found and not (folder / node).is_file():
            missing = f"what it writes to {folder.parent} is not visible to this command"
            problems.append(Problem(where, missing, SAME_STORAGE, "mount it there, or move the folder"))
    return problems


def _living_nodes() -> dict[str, str]:
    """Return the names of the nodes' machines by the nodes' ids."""
    return {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def _required_versions() -> dict[str, str]:
    """Return the versions that every node must have; uncseg itself comes with the command."""
    return {name: version for name, version in describe_versions().items() if name != "uncseg"}


def _timeout_s() -> float:
    """Return how long to wait: a job may have packages installed first (jobs/runtime_env.yaml)."""
    environment = ray.get_runtime_context().runtime_env
    if not environment.get("pip"):
        return ANSWER_S
    return ANSWER_S + float((environment.get("config") or {}).get("setup_timeout_seconds", 600))


def check_node(
    folder: str, node: str, token: str, reads: Mapping[str, str], module: str, versions: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return (found, expected, advice) per problem of the node that this runs on."""
    problems = []
    storage = Path(folder).parent
    try:
        same = Path(folder, "driver").read_text(encoding="utf-8") == token
    except OSError:
        same = False
    try:
        if same:
            Path(folder, node).write_text(socket.gethostname(), encoding="utf-8")
        else:
            problems.append((f"{storage} is not the folder that the command sees", SAME_STORAGE, "mount it there"))
    except OSError as error:
        problems.append((f"{storage}: {error.strerror}", "writable storage", "correct its permissions"))
    problems += [
        (f"{name} {path} does not exist", SAME_STORAGE, "mount it there")
        for name, path in reads.items()
        if not Path(path).is_dir()
    ]
    try:
        importlib.import_module(module)
    except Exception as error:  # an installation can fail in any way
        found = f"{module} cannot be imported: {type(error).__name__}: {error}"
        return [*problems, (found, "the packages of constraints.txt", "pip install -c constraints.txt …")]
    return problems + [
        (f"{name} {here}", f"{versions.get(name)}, as the command has", "install the same versions")
        for name, here in _required_versions().items()
        if here != versions.get(name)
    ]
