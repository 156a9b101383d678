"""The CPUs and GPUs of a cluster's nodes, and how much fits on them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


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
        by_cpu = math.floor(self.cpus / work.cpus) if work.cpus else math.inf
        by_gpu = math.floor(self.gpus / work.gpus) if work.gpus else math.inf
        return int(min(by_cpu, by_gpu))


@dataclass(frozen=True)
class Cluster:
    """The nodes that are present, and the nodes that an autoscaler may still add."""

    nodes: tuple[Node, ...]
    addable: tuple[Node, ...] = ()

    @property
    def potential_nodes(self) -> tuple[Node, ...]:
        """All nodes that the cluster has or may grow to."""
        return self.nodes + self.addable
