"""A cluster's nodes, what a fold takes, and how many fit: as the experiment says, or from what the cluster has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from uncseg.config.sections import Resources
from uncseg.errors import Problem, ProblemsFound, raise_if_any

MAX_CPUS_PER_GPU = 12  # nnU-Net's loaders feed a GPU well with 8 to 12
MIN_CPUS_PER_GPU = 8
TITLE = "The folds cannot be placed on this cluster."


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine, or of work that has to be placed on one machine."""

    cpus: float
    gpus: float = 0.0

    @classmethod
    def from_ray(cls, resources: Mapping[str, float]) -> "Node":
        """Return the node that Ray describes by its resource names, CPU and GPU."""
        return cls(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))

    def fits(self, work: "Node") -> int:
        """Return how many times ``work`` fits on this node."""
        pairs = ((self.cpus, work.cpus), (self.gpus, work.gpus))
        return min(math.floor(available / needed) for available, needed in pairs if needed)


@dataclass(frozen=True)
class Cluster:
    """The nodes that are present, and the nodes that an autoscaler may still add."""

    nodes: tuple[Node, ...]
    addable: tuple[Node, ...] = ()


@dataclass(frozen=True)
class FoldResources:
    """What one fold takes from the cluster."""

    cpus: float
    gpus: float

    @property
    def processes(self) -> int:
        """Workers that train one fold together, one per GPU."""
        return max(1, int(self.gpus))

    @property
    def worker(self) -> Node:
        """What one of these workers takes, all of it on one node."""
        return Node(self.cpus / self.processes, self.gpus / self.processes)


@dataclass(frozen=True)
class Slots:
    """How many folds are trained side by side, and what each takes."""

    count: int
    """Folds that fit on the nodes that are present; 0 if every node has yet to be added."""
    max_count: int
    """Folds that fit once the autoscaler has added every node it may."""
    requested: int
    """Folds that the experiment asks for at once, whether they fit or not."""
    fold: FoldResources
    cases: int
    """Cases evaluated or predicted side by side; each takes what one worker of a fold takes."""

    @property
    def cpus_per_process(self) -> int:
        """Whole CPU cores per process of a fold, at least 1."""
        return max(1, math.floor(self.fold.worker.cpus))


def plan_slots(resources: Resources, folds: int, cluster: Cluster) -> Slots:
    """Fill in what the experiment leaves open from what the cluster has.

    If the cluster has GPUs, each fold takes one; otherwise the CPUs are shared among the folds.

    Raises:
        ProblemsFound: a fold asks for more than the cluster has or may grow to; Ray would wait for it forever.
    """
    nodes = cluster.nodes + cluster.addable
    gpus, cpus = resources.gpus_per_fold, resources.cpus_per_fold
    if gpus is None:
        gpus = float(any(node.gpus for node in nodes))
    at_once = min(folds, resources.folds_at_once or folds)
    if cpus is None:
        cpus = _cpus_beside_gpus(nodes, gpus, at_once) if gpus else _cpu_share(nodes, at_once)
    fold = FoldResources(cpus=cpus, gpus=gpus)
    _require_placeable(fold, nodes)
    cases = _workers(fold, nodes)
    max_count = min(at_once, cases // fold.processes)
    if resources.folds_at_once is not None:
        cases = min(cases, max_count * fold.processes)
    count = min(at_once, _workers(fold, cluster.nodes) // fold.processes)
    return Slots(count, max_count, at_once, fold, cases)


def _workers(fold: FoldResources, nodes: tuple[Node, ...]) -> int:
    return sum(node.fits(fold.worker) for node in nodes)


def _cpus_beside_gpus(nodes: tuple[Node, ...], gpus: float, at_once: int) -> float:
    """Return the CPUs of a fold such that no node runs out of CPUs before it runs out of GPUs."""
    processes = max(1, int(gpus))
    per_worker = gpus / processes
    shares = [
        math.floor(node.cpus / min(math.floor(node.gpus / per_worker), at_once * processes))
        for node in nodes
        if node.gpus >= per_worker
    ]
    return float(processes * max(1, min([*shares, MAX_CPUS_PER_GPU])))


def _cpu_share(nodes: tuple[Node, ...], at_once: int) -> float:
    """Return the most CPUs that each of ``at_once`` folds can have, or 1 if there are fewer CPUs than folds."""
    share = max([1, *(math.floor(node.cpus) for node in nodes)])
    while share > 1 and sum(math.floor(node.cpus / share) for node in nodes) < at_once:
        share -= 1
    return float(share)


def _require_placeable(fold: FoldResources, nodes: tuple[Node, ...]) -> None:
    worker = fold.worker
    problems = []
    if not any(node.cpus for node in nodes):
        expected = "nodes besides the head node, or an autoscaler that adds them"
        advice = "start them (ray start --address …), or declare what the autoscaler adds: resources.autoscaler"
        raise ProblemsFound(TITLE, [Problem("cluster", "no node with CPUs", expected, advice)])
    largest = Node(max([0.0, *(node.cpus for node in nodes)]), max([0.0, *(node.gpus for node in nodes)]))
    for field, needed, available, unit in (
        ("resources.gpus_per_fold", worker.gpus, largest.gpus, "GPU"),
        ("resources.cpus_per_fold", worker.cpus, largest.cpus, "CPU"),
    ):
        if needed > available:
            found = f"{needed * fold.processes:g} {unit}s per fold"
            expected = f"{unit}s that the cluster has or may grow to: {available:g} on its largest node"
            advice = f"set it to {available * fold.processes:g} or less, or remove the field to use what is found"
            problems.append(Problem(field, found, expected, advice))
    workers = _workers(fold, nodes)
    if not problems and workers < fold.processes:
        found = f"{fold.gpus:g} GPUs and {fold.cpus:g} CPUs per fold"
        need = f"{worker.cpus:g} CPUs and {worker.gpus:g} GPUs each"
        expected = f"room for {fold.processes} workers of {need}; the nodes hold {workers}"
        advice = f"set `resources.gpus_per_fold` to {workers} or less, or lower" if workers else "lower"
        where = "resources.gpus_per_fold, cpus_per_fold"
        problems.append(Problem(where, found, expected, f"{advice} `resources.cpus_per_fold`"))
    raise_if_any(problems, TITLE)
