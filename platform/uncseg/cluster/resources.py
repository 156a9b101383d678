"""What a fold takes, and how many folds fit side by side: from the experiment, or found."""

import math
from dataclasses import dataclass

from uncseg.cluster.nodes import Cluster, Node
from uncseg.config.sections import Resources
from uncseg.errors import Problem, ProblemsFound

MOST_CPUS_PER_GPU = 12  # nnU-Net's loaders feed a GPU well with 8 to 12
FEWEST_CPUS_PER_GPU = 8


@dataclass(frozen=True)
class FoldResources:
    """What one fold takes from the cluster."""

    cpus: float
    gpus: float

    @property
    def processes(self) -> int:
        """Workers that train one fold together: one a GPU."""
        return max(1, int(self.gpus))

    @property
    def of_worker(self) -> Node:
        """What one of its workers takes, all on one node."""
        return Node(self.cpus / self.processes, self.gpus / self.processes)


@dataclass(frozen=True)
class Slots:
    """Folds side by side, and what each takes."""

    count: int
    """On the nodes there are now; 0 where all are yet to come."""
    most: int
    """With the nodes that may be added."""
    wanted: int
    """As many as the experiment would have, whatever fits."""
    each: FoldResources
    cases: int
    """Cases evaluated or predicted side by side: each takes what a worker of a fold takes."""

    @property
    def cpus(self) -> int:
        """Whole CPU cores of one process of a fold, at least 1."""
        return max(1, math.floor(self.each.of_worker.cpus))


def plan_slots(wanted: Resources, folds: int, cluster: Cluster) -> Slots:
    """Fill in what the experiment leaves open from what the cluster has.

    GPUs are used if there are any, one a fold; otherwise the CPUs are shared out among as many folds as there are.

    Args:
        wanted: the experiment's section.
        folds: folds to train.
        cluster: its nodes, there or to come.

    Raises:
        ProblemsFound: where a fold asks for more than the whole cluster has or may grow to, since Ray would wait for
            ever.
    """
    gpus = wanted.gpus_per_fold
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in cluster.at_most) else 0.0
    at_once = folds if wanted.folds_at_once is None else min(folds, wanted.folds_at_once)
    cpus = wanted.cpus_per_fold
    if cpus is None:
        cpus = _share_beside_gpus(cluster.at_most, gpus, at_once) if gpus else _share_of_cpus(cluster.at_most, at_once)
    each = FoldResources(cpus=cpus, gpus=gpus)
    _check_possible(each, cluster.at_most)
    most = _fit(each, cluster.at_most, at_once)
    cases = sum(node.fits(each.of_worker) for node in cluster.at_most)
    if wanted.folds_at_once is not None:
        cases = min(cases, most * each.processes)
    return Slots(_fit(each, cluster.nodes, at_once), most, at_once, each, cases)


def _fit(each: FoldResources, nodes: tuple[Node, ...], at_once: int) -> int:
    workers = sum(node.fits(each.of_worker) for node in nodes)
    return min(at_once, workers // each.processes)


def _share_beside_gpus(nodes: tuple[Node, ...], gpus: float, at_once: int) -> float:
    """CPUs of a fold, such that they run out on no node before its GPUs do."""
    processes = max(1, int(gpus))
    per_worker = gpus / processes
    shares = [
        math.floor(node.cpus / min(math.floor(node.gpus / per_worker), at_once * processes))
        for node in nodes
        if node.gpus >= per_worker
    ]
    return float(processes * max(1, min([*shares, MOST_CPUS_PER_GPU])))


def _share_of_cpus(nodes: tuple[Node, ...], at_once: int) -> float:
    """The most CPUs that so many folds can have each, or 1 where there are fewer CPUs than folds."""
    share = max([1, *(math.floor(node.cpus) for node in nodes)])
    while share > 1 and sum(math.floor(node.cpus / share) for node in nodes) < at_once:
        share -= 1
    return float(share)


def _check_possible(each: FoldResources, nodes: tuple[Node, ...]) -> None:
    worker = each.of_worker
    problems = []
    if not any(node.cpus for node in nodes):
        found, expected = "no node with CPUs", "nodes that work beside the head, or an autoscaler that adds them"
        advice = "start them (ray start --address …), or say what the autoscaler adds: resources.autoscaler"
        problem = Problem("cluster", found, expected, advice)
        raise ProblemsFound("The folds cannot be placed on this cluster.", [problem])
    if each.gpus > 1 and each.gpus != int(each.gpus):
        found, advice = f"{each.gpus:g} GPUs a fold", f"write {math.floor(each.gpus)} or {math.ceil(each.gpus)}"
        problems.append(Problem("resources.gpus_per_fold", found, "a whole number, or a share of one", advice))
    most = Node(max([0.0, *(node.cpus for node in nodes)]), max([0.0, *(node.gpus for node in nodes)]))
    for field, asked, has, what in (
        ("resources.gpus_per_fold", worker.gpus, most.gpus, "GPU"),
        ("resources.cpus_per_fold", worker.cpus, most.cpus, "CPU"),
    ):
        if asked > has:
            found = f"{asked * each.processes:g} {what}s a fold"
            expected = f"{what}s that the cluster has or may grow to: {has:g} on its largest node"
            advice = f"write {has * each.processes:g} or less, or remove the field to use what is found"
            problems.append(Problem(field, found, expected, advice))
    workers = sum(node.fits(worker) for node in nodes)
    if not problems and workers < each.processes:
        found = f"{each.gpus:g} GPUs and {each.cpus:g} CPUs a fold"
        expected = f"at most {workers} workers of {worker.cpus:g} CPUs and {worker.gpus:g} GPUs, as the nodes hold them"
        fewer = f"write resources.gpus_per_fold: {workers} or less, or " if workers else "write "
        advice = f"{fewer}fewer resources.cpus_per_fold"
        problems.append(Problem("resources.gpus_per_fold, cpus_per_fold", found, expected, advice))
    if problems:
        raise ProblemsFound("The folds cannot be placed on this cluster.", problems)
