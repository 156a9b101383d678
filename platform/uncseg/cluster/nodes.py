"""The connected cluster: its nodes, and those its autoscaler may add."""

import math
from dataclasses import dataclass

import ray
from ray._private.state import state as cluster_state

MOST_OF_A_KIND = 64  # stands for "no limit"


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of a machine, or of what is to be placed on one."""

    cpus: float
    gpus: float = 0.0

    def fits(self, part: "Node") -> int:
        """How often ``part`` fits on this node."""
        by_cpu = math.floor(self.cpus / part.cpus) if part.cpus else math.inf
        by_gpu = math.floor(self.gpus / part.gpus) if part.gpus else math.inf
        return int(min(by_cpu, by_gpu))


@dataclass(frozen=True)
class Cluster:
    """Nodes that are there, and nodes that an autoscaler may add."""

    nodes: tuple[Node, ...]
    to_come: tuple[Node, ...] = ()

    @property
    def at_most(self) -> tuple[Node, ...]:
        """All of them."""
        return self.nodes + self.to_come


def connected_cluster() -> Cluster:
    """The cluster that this process is connected to."""
    nodes = tuple(_node(each["Resources"]) for each in ray.nodes() if each["Alive"])
    return Cluster(nodes, _to_come(nodes))


def _node(resources: dict[str, float]) -> Node:
    return Node(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))


def _to_come(there: tuple[Node, ...]) -> tuple[Node, ...]:
    """Nodes that the autoscaler may still add, as far as it has told Ray; Ray has no public way to ask."""
    config = cluster_state.get_cluster_config()
    if config is None:
        return ()
    may_be = [
        _node(dict(group.resources))
        for group in config.node_group_configs
        for _ in range(MOST_OF_A_KIND if group.max_count < 0 else group.max_count)
    ]
    for node in there:
        if node in may_be:
            may_be.remove(node)
    return tuple(may_be)
