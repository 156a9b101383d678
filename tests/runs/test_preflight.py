"""Checks before a run begins."""

import sqlite3
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize(("precision", "instruction"), [("bf16", "amx_bf16"), ("fp16", "avx512_fp16"), ("fp32", "")])
def test_half_precision_without_instructions_is_said_to_be_slow(
    four_cases, experiment_file, capsys, monkeypatch, precision, instruction, has
):
    names = ("avx512_bf16", "amx_bf16", "avx512_fp16", "amx_fp16")
    told = {name: has and name == instruction for name in names} | {"architecture": "x86_64", "cpu_name": "Abacus 9"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    experiment = load_experiment(experiment_file(four_cases), [f"training.precision={precision}"])
    preflight(experiment, 2, Cluster((Node(2.0),)), own_ray=True, begun=False)
    said = capsys.readouterr().err
    assert ("Abacus 9" in said) == (not has and precision != "fp32")
    assert ("training.precision=fp32" in said) == ("Abacus 9" in said)
    preflight(experiment, 2, Cluster((Node(4.0, 1.0),)), own_ray=True, begun=False)
    assert "training.precision" not in capsys.readouterr().err, "a GPU computes"
