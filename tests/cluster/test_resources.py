"""What a fold takes and how many fit, from what a cluster has."""

import pytest

from uncseg.cluster.resources import Cluster, Node, plan_slots
from uncseg.config.sections import Resources
from uncseg.errors import ProblemsFound


def one_node(CPU, GPU=0):
    return Cluster((Node(CPU, GPU),))


@pytest.mark.parametrize(
    ("resources", "cluster", "folds", "count", "cpus", "gpus"),
    [
        ({}, {"CPU": 2}, 5, 2, 1, 0),
        ({}, {"CPU": 16}, 5, 5, 3, 0),
        ({}, {"CPU": 1}, 5, 1, 1, 0),
        ({}, {"CPU": 64, "GPU": 4}, 5, 4, 12, 1),
        ({}, {"CPU": 16, "GPU": 8}, 5, 5, 3, 1),
        ({"folds_at_once": 1}, {"CPU": 8}, 5, 1, 8, 0),
        ({"gpus_per_fold": 0.5}, {"CPU": 16, "GPU": 1}, 5, 2, 8, 0.5),
        ({"gpus_per_fold": 0}, {"CPU": 4, "GPU": 2}, 2, 2, 2, 0),
        ({"gpus_per_fold": 2}, {"CPU": 48, "GPU": 4}, 5, 2, 24, 2),
        ({"cpus_per_fold": 3}, {"CPU": 8}, 5, 2, 3, 0),
    ],
)
def test_slots_on_one_node(resources, cluster, folds, count, cpus, gpus):
    slots = plan_slots(Resources(**resources), folds, one_node(**cluster))
    assert (slots.count, slots.fold.cpus, slots.fold.gpus) == (count, cpus, gpus)


@pytest.mark.parametrize("resources", [{"gpus_per_fold": 1}, {"cpus_per_fold": 5}, {"gpus_per_fold": 2}])
def test_a_fold_larger_than_the_cluster_is_refused(resources):
    with pytest.raises(ProblemsFound) as caught:
        plan_slots(Resources(**resources), 5, one_node(CPU=4))
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].where == f"resources.{next(iter(resources))}"


@pytest.mark.parametrize(
    ("resources", "nodes", "count", "cpus", "gpus"),
    [
        # a fold never straddles two nodes: 3 + 3 CPUs hold two folds of 2, not three
        ({"cpus_per_fold": 2}, [(3, 0), (3, 0)], 2, 2, 0),
        ({}, [(4, 0), (4, 0), (4, 0)], 5, 2, 0),
        ({}, [(0, 0), (32, 2), (8, 2)], 4, 4, 1),
        ({}, [(16, 0), (16, 1), (16, 1)], 2, 12, 1),
        # several GPUs of one fold may lie on several nodes, one per worker
        ({"gpus_per_fold": 2}, [(8, 1), (8, 1), (8, 1)], 1, 16, 2),
        ({"gpus_per_fold": 0.5}, [(8, 1), (8, 1)], 4, 4, 0.5),
    ],
)
def test_slots_on_several_nodes(resources, nodes, count, cpus, gpus):
    slots = plan_slots(Resources(**resources), 5, Cluster(tuple(Node(*node) for node in nodes)))
    assert (slots.count, slots.max_count, slots.fold.cpus, slots.fold.gpus) == (count, count, cpus, gpus)


def test_slots_count_addable_nodes():
    slots = plan_slots(Resources(), 5, Cluster((Node(4),), addable=(Node(16, 1),) * 3))
    assert (slots.count, slots.max_count, slots.fold.gpus, slots.fold.cpus) == (0, 3, 1, 12)


def test_a_head_node_without_cpus_is_refused():
    with pytest.raises(ProblemsFound, match=r"resources\.autoscaler"):
        plan_slots(Resources(gpus_per_fold=1), 5, Cluster((Node(0),)))


@pytest.mark.parametrize(("folds_at_once", "cases"), [(None, 8), (1, 1)])
def test_cases_use_every_gpu_unless_folds_at_once_limits_them(folds_at_once, cases):
    slots = plan_slots(Resources(folds_at_once=folds_at_once), 5, Cluster((Node(32, 4), Node(32, 4))))
    assert slots.cases == cases


def test_gpus_without_enough_cpus_on_their_node_are_refused():
    with pytest.raises(ProblemsFound, match=r"the nodes hold 0; lower `resources\.cpus_per_fold`"):
        plan_slots(Resources(cpus_per_fold=12), 5, Cluster((Node(8, 1), Node(16))))


def test_a_fold_that_fits_on_no_single_node_is_refused():
    with pytest.raises(ProblemsFound, match="4 on its largest node"):
        plan_slots(Resources(cpus_per_fold=6), 5, Cluster((Node(4), Node(4))))
