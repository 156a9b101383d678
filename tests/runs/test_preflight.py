"""Checks before a run begins."""

import sqlite3
from pathlib import Path

import pytest

from uncseg.cluster.resources import Cluster, Node
from uncseg.config.experiment import load_experiment
from uncseg.errors import ProblemsFound
from uncseg.runs.preflight import preflight


@pytest.mark.parametrize("begun", [False, True])
def test_a_database_of_a_newer_mlflow_is_refused(four_cases, experiment_file, new_database, begun):
    experiment = load_experiment(experiment_file(four_cases))
    cluster = Cluster((Node(2.0),))
    assert preflight(experiment, 2, cluster, own_ray=True, begun=begun).count > 0
    maker = Path(new_database("elsewhere").removeprefix("sqlite:///"))  # MLflow keeps what a process has opened
    experiment.storage.path.mkdir(parents=True, exist_ok=True)
    maker.rename(experiment.storage.path / "mlflow.db")
    with sqlite3.connect(experiment.storage.path / "mlflow.db") as connection:
        connection.execute("update alembic_version set version_num = 'zzz'")
    with pytest.raises(ProblemsFound) as caught:
        preflight(experiment, 2, cluster, own_ray=True, begun=begun)
    assert "of a newer MLflow" in caught.value.problems[0].found
