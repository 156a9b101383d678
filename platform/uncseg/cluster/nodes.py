"""What machines hold, and what fits on them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


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


def node_of(resources: Mapping[str, float]) -> Node:
    """A node from Ray's names: CPU, GPU."""
    return Node(float(resources.get("CPU", 0)), float(resources.get("GPU", 0)))
