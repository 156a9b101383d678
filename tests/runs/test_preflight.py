"""What is found before a run begins."""

import sqlite3

import pytest

from uncseg.cluster.nodes import Cluster, Node
from uncseg.config.experiment import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.errors import ProblemsFound
from uncseg.runs.preflight import preflight
from uncseg.tracking.opening import open_store


@pytest.mark.parametrize("begun", [False, True])
def test_the_runs_own_database_of_another_mlflow(experiment_file, tmp_path, begun):
    write_phantoms(tmp_path / "cases", cases=2, size=24, seed=0)
    experiment = load_experiment(experiment_file(tmp_path / "cases"))
    cluster = Cluster((Node(2.0),))
    assert preflight(experiment, 2, cluster, own_ray=True, begun=begun).count > 0
    maker = tmp_path / "made elsewhere" / "mlflow.db"  # MLflow keeps what a process has opened
    open_store(f"sqlite:///{maker}", "uncseg")
    experiment.storage.path.mkdir(parents=True, exist_ok=True)
    maker.rename(experiment.storage.path / "mlflow.db")
    with sqlite3.connect(experiment.storage.path / "mlflow.db") as connection:
        connection.execute("update alembic_version set version_num = 'zzz'")
    with pytest.raises(ProblemsFound) as caught:
        preflight(experiment, 2, cluster, own_ray=True, begun=begun)
    assert "of a newer MLflow" in caught.value.problems[0].found
