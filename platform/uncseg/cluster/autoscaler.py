"""The nodes that a cluster's autoscaler may add: as the experiment declares them, or as the head node knows them."""

from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uncseg.cluster.ray_internals import HEAD_NODE
from uncseg.cluster.resources import Cluster, Node
from uncseg.config.sections import Resources


def connected_cluster(resources: Resources, own_ray: bool) -> Cluster:
    """Return the cluster that this process is connected to; nothing is ever added to a Ray of the command's own.

    ``resources.autoscaler`` declares what may be added. If it is None, read the configuration that the autoscaler on
    the head node was started with: Ray has no public way to ask for it, and on Kubernetes the head node does not hold
    it.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = tuple(Node.from_ray(node["Resources"]) for node in alive)
    if own_ray:
        return Cluster(nodes)
    if (declared := resources.autoscaler) is not None:
        limits = {Node(declared.cpus, declared.gpus): declared.nodes}
        return Cluster(nodes, _addable(nodes, limits, declared.nodes))
    head = next((node["NodeID"] for node in alive if HEAD_NODE in node["Resources"]), None)
    config = None if head is None else _read_config_on(head)
    return with_addable_nodes(nodes, config) if config else Cluster(nodes)


def _read_config_on(head: str) -> dict[str, Any] | None:
    context = ray.get_runtime_context()
    if context.get_node_id() == head:
        return read_config(context.gcs_address)
    there = NodeAffinitySchedulingStrategy(head, soft=False)
    remote = ray.remote(num_cpus=0, scheduling_strategy=there)(read_config)
    config: dict[str, Any] | None = ray.get(remote.remote(context.gcs_address))
    return config


def read_config(gcs_address: str) -> dict[str, Any] | None:
    """Return the cluster file of the autoscaler that serves this address, or None. Runs on the head node."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        files = [word.partition("=")[2] for word in words if word.startswith("--autoscaling-config=")]
        if f"--gcs-address={gcs_address}" in words and files:
            try:
                content = yaml.safe_load(Path(files[0]).expanduser().read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError):
                return None
            return content if isinstance(content, dict) else None
    return None


def with_addable_nodes(present: tuple[Node, ...], config: dict[str, Any]) -> Cluster:
    """Return the present nodes together with those that a cluster file of Ray's launcher lets the autoscaler add.

    Such a file lists kinds of nodes, a limit per kind, and a limit for all nodes but the head node.
    """
    limit = int(config.get("max_workers", 0))
    limits: Counter[Node] = Counter()
    for name, kind in config.get("available_node_types", {}).items():
        if name != config.get("head_node_type"):
            limits[Node.from_ray(kind.get("resources", {}))] += min(limit, int(kind.get("max_workers", limit)))
    return Cluster(present, _addable(present, limits, limit))


def _addable(present: tuple[Node, ...], limits: dict[Node, int], limit: int) -> tuple[Node, ...]:
    counts = {kind: min(maximum, present.count(kind)) for kind, maximum in limits.items()}
    missing = [kind for kind, maximum in limits.items() for _ in range(maximum - counts[kind])]
    # the largest first: they decide whether a fold can be placed at all
    missing.sort(key=lambda node: (node.gpus, node.cpus), reverse=True)
    return tuple(missing[: max(0, limit - sum(counts.values()))])
