"""cluster.yaml and the RayJob, checked offline."""

from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from uncseg.cluster.autoscaler import with_addable_nodes
from uncseg.cluster.resources import Node, plan_slots
from uncseg.config.sections import Resources

ROOT = Path(__file__).resolve().parents[2]


def cluster_file():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_rays_launcher_accepts_the_cluster_file():
    config = prepare_config(cluster_file())
    validate_config(config)
    kinds = config["available_node_types"]
    head, gpu = kinds[config["head_node_type"]], kinds["gpu"]
    assert "GPU" not in head["resources"]
    assert gpu["resources"]["GPU"] == 1
    assert gpu["resources"]["CPU"] >= 8
    assert gpu["min_workers"] == 0 < gpu["max_workers"]
    assert config["idle_timeout_minutes"] > 0
    assert any("constraints.txt" in command for command in config["setup_commands"])
    # without one Ray takes an image of 2018, whose Python is too old
    assert all(kind["node_config"]["ImageId"] for kind in (head, gpu))


def test_the_workers_of_the_cluster_file_are_addable_nodes():
    cluster = with_addable_nodes((Node(0),), prepare_config(cluster_file()))
    assert cluster.nodes == (Node(0),)
    assert cluster.addable == (Node(16, 1),) * 5
    slots = plan_slots(Resources(), 5, cluster)
    assert (slots.count, slots.max_count, slots.fold.gpus) == (0, 5, 1)


def test_rays_launcher_refuses_an_unknown_key():
    with pytest.raises(ValidationError):
        validate_config(prepare_config(cluster_file() | {"idle_timeout": 3}))


def test_the_rayjob_agrees_with_its_workers_and_its_shared_volume():
    job = yaml.safe_load((ROOT / "jobs" / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    for word in words[1:3]:
        assert (ROOT / word.removeprefix("/shared/uncseg/")).is_file()
    # the head node of a KubeRay cluster does not know what its autoscaler may add: the job declares it
    settings = dict(word.split("=") for word in words if word.startswith("resources.autoscaler."))
    declared = {name.rpartition(".")[2]: int(value) for name, value in settings.items()}
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    expected = {"nodes": workers["maxReplicas"], "cpus": int(limits["cpu"]), "gpus": int(limits["nvidia.com/gpu"])}
    assert declared == expected
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["shared"] == "/shared"
        assert "shared" in {volume["name"] for volume in spec["volumes"] if "persistentVolumeClaim" in volume}
    assert groups[0]["rayStartParams"]["num-cpus"] == "0"
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert f"ray=={cluster['rayVersion']}" in constraints
