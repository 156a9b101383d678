"""Whether every node of a cluster sees the storage and the cases, and has the packages."""

import os
import re
import shutil
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uncseg.cluster.session import UNDER_A_JOB
from uncseg.config.experiment import Experiment
from uncseg.errors import Problem, ProblemsFound
from uncseg.provenance import describe_versions

ANSWER_S = 180  # importing torch and nnU-Net from a slow network file system takes a minute


def require_storage(experiment: Experiment, own_ray: bool) -> None:
    """Raise what :func:`check_storage` finds, for commands that train nothing.

    Raises:
        ProblemsFound: all of it.
    """
    _raise(check_storage(experiment, own_ray))


def require_places(writes: Mapping[str, Path], reads: Mapping[str, Path], own_ray: bool) -> None:
    """The same for folders of a command's own, by their names on the command line.

    Raises:
        ProblemsFound: all that is wrong.
    """
    _raise(check_places(writes, reads, own_ray))


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise ProblemsFound("The command would fail.", problems)


def check_storage(experiment: Experiment, own_ray: bool) -> list[Problem]:
    """Whether every node sees the experiment's folders and has the packages."""
    dataset = experiment.dataset
    problems = _lost_database(experiment.tracking.uri)
    if isinstance(dataset.exclude, Path):
        problems += _relative_paths({"dataset.exclude": dataset.exclude})
    return problems + check_places({"storage.path": experiment.storage.path}, {"dataset.path": dataset.path}, own_ray)


def _lost_database(uri: str | None) -> list[Problem]:
    """Under a job a relative database would lie in the copy that goes when the job ends."""
    file = re.fullmatch(r"sqlite:///(?!/)(.*)|(?!\w+://)(?!/)(.*)", uri or "/")
    if UNDER_A_JOB not in os.environ or file is None:
        return []
    advice = "write a server's address, or sqlite:////… with the whole path"
    return [Problem("tracking.uri", str(uri), "an address that is still there after the job", advice)]


def check_places(writes: Mapping[str, Path], reads: Mapping[str, Path], own_ray: bool) -> list[Problem]:
    """Whether every node sees folders and has the packages; nodes are asked where all paths make sense there.

    A file written here has to be read on each node, and the other way round.

    Args:
        writes: folders that are written to, by the names that the user knows them under.
        reads: folders that are only read.
        own_ray: Ray is this process's own: its one node is this machine.
    """
    problems = _relative_paths({**reads, **writes})
    if problems or own_ray:
        return problems
    reads = {name: path.resolve() for name, path in reads.items()}
    return [p for name, path in writes.items() for p in _check_nodes(name, path.resolve(), reads)]


def _relative_paths(places: Mapping[str, Path]) -> list[Problem]:
    """Under ``ray job submit`` the working directory is a copy that goes when the job ends: paths must be absolute."""
    if UNDER_A_JOB not in os.environ:
        return []
    return [
        Problem(name, str(path), "an absolute path on storage that every node sees", _how_to_write(name))
        for name, path in places.items()
        if not path.is_absolute()
    ]


def _how_to_write(name: str) -> str:
    return f"write --set {name}=/…" if "." in name else "write the whole path"


def _check_nodes(name: str, storage: Path, reads: Mapping[str, Path]) -> list[Problem]:
    token = uuid.uuid4().hex
    folder = storage / f".preflight-{token}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return [Problem(name, f"{storage}: {error.strerror}", "a folder that can be written", "give another")]
    try:
        (folder / "driver").write_text(token, encoding="utf-8")
        return _ask_nodes(folder, token, {which: str(path) for which, path in reads.items()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ask_nodes(folder: Path, token: str, reads: Mapping[str, str]) -> list[Problem]:
    look = ray.remote(num_cpus=0, max_retries=0)(look_from_node)
    expected = _needed_versions()
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
    asked = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(folder), node, token, reads, expected
        )
        for node in nodes
    }
    longest = _longest_wait_s()
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=longest)
    problems: list[Problem] = []
    for node, answer in asked.items():
        where = f"node {nodes[node]} ({node[:8]})"
        try:
            found = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            found = [(f"no answer within {longest:g} s", "a worker that starts", "look at its logs: ray logs")]
        except ray.exceptions.RayError as error:
            found = [(str(error).strip().splitlines()[-1], "a worker that starts", "look at its logs: ray logs")]
        problems += [Problem(where, *parts) for parts in found]
        if not found and not (folder / node).is_file():
            missing = f"what it writes to {folder.parent} is not seen here"
            problems.append(Problem(where, missing, "the same storage on every node", "mount it there, or move it"))
    return problems


def _needed_versions() -> dict[str, str]:
    """Of what has to be installed on every node: the package itself comes with the command."""
    return {name: version for name, version in describe_versions().items() if name != "uncseg"}


def _longest_wait_s() -> float:
    """A job may have packages installed first (jobs/runtime_env.yaml), as long as it says."""
    environment = ray.get_runtime_context().runtime_env
    if not environment.get("pip"):
        return ANSWER_S
    return ANSWER_S + float((environment.get("config") or {}).get("setup_timeout_seconds", 600))


def look_from_node(
    folder: str, node: str, token: str, reads: Mapping[str, str], versions: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Runs on a node: (found, expected, advice) of everything that is wrong there."""
    wrong = []
    shared = "the same storage on every node"
    try:
        seen = Path(folder, "driver").read_text(encoding="utf-8") == token
    except OSError:
        seen = False
    if not seen:
        wrong.append((f"{Path(folder).parent} is not the folder that the command sees", shared, "mount it there"))
    else:
        try:
            Path(folder, node).write_text(socket.gethostname(), encoding="utf-8")
        except OSError as error:
            wrong.append((f"{Path(folder).parent}: {error.strerror}", "storage that can be written", "mend its rights"))
    for name, path in reads.items():
        if not Path(path).is_dir():
            wrong.append((f"{name} {path} is not there", shared, "mount it there"))
    try:
        import uncseg.method.training.trainer  # noqa: F401
    except Exception as error:  # whatever an installation can do wrong
        what = f"the trainer cannot be imported: {type(error).__name__}: {error}"
        return [*wrong, (what, "the packages of constraints.txt", "pip install -c constraints.txt …")]
    for name, here in _needed_versions().items():
        if here != versions.get(name):
            wrong.append((f"{name} {here}", f"{versions.get(name)}, as the command has", "install the same set"))
    return wrong
