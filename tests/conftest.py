"""Shared by all tests: quiet libraries, small cases, one local Ray."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)

import pytest
import yaml

from support.servers import kill, server_starter


@pytest.fixture(scope="session")
def local_ray():
    """A local Ray of 2 CPUs, for all tests of the session."""
    import ray

    from uncseg.cluster.session import ray_session

    with ray_session(None, num_cpus=2):
        yield ray


@pytest.fixture
def experiment_file(tmp_path):
    """Write a small experiment; sections are merged into it."""

    def write(cases, /, **sections):
        content = {
            "name": "small",
            "dataset": {"path": str(cases), "name": "Small"},
            "split": {"folds": 2},
            "plan": {
                "patch_size": [16, 16, 16],
                "batch_size": 2,
                "base_features": 4,
                "max_features": 8,
                "max_stages": 2,
                "foreground_samples": 100_000,  # nnU-Net's own number takes most of the tests' time
            },
            "loss": {"weight_ce": [0.2, 1, 0.2, 1], "warmup_epochs": 2},
            "training": {
                "epochs": 4,
                "iterations_per_epoch": 4,
                "val_iterations_per_epoch": 2,
                "checkpoint_every": 1,
            },
            "storage": {"path": str(tmp_path / "runs")},
        }
        for section, values in sections.items():
            content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
        file = tmp_path / "experiment.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    return write


@pytest.fixture
def database(tmp_path):
    """An empty MLflow database."""
    from uncseg.tracking.opening import open_store

    path = tmp_path / "server" / "mlflow.db"
    open_store(f"sqlite:///{path}", "made here, which is quicker")
    return path


@pytest.fixture
def start_server(tmp_path, database):
    """A function that starts a real MLflow server, always on the same port and database; (address, process)."""
    start, processes = server_starter(tmp_path, database)
    yield start
    for process in processes:
        kill(process)
