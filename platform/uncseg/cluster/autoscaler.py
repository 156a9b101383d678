"""The nodes that a cluster's autoscaler may still add: read on the head, or as the experiment says."""

from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from uncseg.cluster.nodes import Cluster, Node, node_of
from uncseg.config.sections import Resources

HEAD = "node:__internal_head__"  # a resource that Ray gives to the head alone


def connected_cluster(resources: Resources, own_ray: bool) -> Cluster:
    """The cluster that this process is connected to.

    Args:
        resources: the experiment's; ``autoscaler`` says what may be added. None: what the autoscaler on the head was
            started with. Ray has no public way to ask, and on Kubernetes nothing on the head says it.
        own_ray: a Ray of the command's own, to which nothing is ever added.
    """
    declared = resources.autoscaler
    alive = [each for each in ray.nodes() if each["Alive"]]
    nodes = tuple(node_of(each["Resources"]) for each in alive)
    if own_ray:
        return Cluster(nodes)
    if declared is not None:
        kind = Node(declared.cpus, declared.gpus)
        return Cluster(nodes, _not_there_yet(nodes, {kind: declared.nodes}, declared.nodes))
    heads = [each["NodeID"] for each in alive if HEAD in each["Resources"]]
    config = _ask_head(heads[0]) if heads else None
    return nodes_to_come(nodes, config) if config else Cluster(nodes)


def _ask_head(head: str) -> dict[str, Any] | None:
    context = ray.get_runtime_context()
    if context.get_node_id() == head:
        return read_config(context.gcs_address)
    there = NodeAffinitySchedulingStrategy(head, soft=False)
    found: dict[str, Any] | None = ray.get(
        ray.remote(num_cpus=0)(read_config).options(scheduling_strategy=there).remote(context.gcs_address)
    )
    return found


def read_config(gcs_address: str) -> dict[str, Any] | None:
    """Runs on the head: the cluster file of the autoscaler that serves this address; None where there is none."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in words:
            continue
        for word in words:
            option, _, path = word.partition("=")
            if option == "--autoscaling-config":
                try:
                    content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
                except (OSError, yaml.YAMLError):
                    return None
                return content if isinstance(content, dict) else None
    return None


def nodes_to_come(there: tuple[Node, ...], config: dict[str, Any]) -> Cluster:
    """The nodes that are there, and those that a file of Ray's launcher lets the autoscaler add.

    Such a file has kinds of nodes, the most of each kind, and the most of all but the head.
    """
    most = int(config.get("max_workers", 0))
    kinds: Counter[Node] = Counter()
    for name, kind in config.get("available_node_types", {}).items():
        if name != config.get("head_node_type"):
            kinds[node_of(kind.get("resources", {}))] += min(most, int(kind.get("max_workers", most)))
    return Cluster(there, _not_there_yet(there, kinds, most))


def _not_there_yet(there: tuple[Node, ...], kinds: dict[Node, int], most: int) -> tuple[Node, ...]:
    present = {kind: min(number, there.count(kind)) for kind, number in kinds.items()}
    missing = [kind for kind, number in kinds.items() for _ in range(number - present[kind])]
    # the largest first: they are what decides whether a fold can be placed at all
    missing.sort(key=lambda node: (node.gpus, node.cpus), reverse=True)
    return tuple(missing[: max(0, most - sum(present.values()))])
