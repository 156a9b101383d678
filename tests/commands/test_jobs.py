"""``ray job submit`` from a fresh clone to a running cluster, with a real MLflow server, as a user does."""

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.job_submission import JobStatus, JobSubmissionClient

from support.clusters import last_epoch, ray_start
from support.commands import Command, environment, start_uncseg
from uncseg.files import read_json
from uncseg.tracking.spool import read_history

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CROSS_VALIDATE = ("jobs/cross_validate.py", "experiments/small.yaml")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone") / "uncseg"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two CPUs."""
    with ray_start(cpus=2) as started:
        yield started


@pytest.fixture
def dashboard(cluster):
    """The address through which jobs are submitted."""
    return cluster.dashboard


@pytest.fixture
def submit(clone, cluster, experiment_file, four_cases, tmp_path):
    """A function that starts ``ray job submit``, by default of a cross-validation, with a storage per test."""

    def start(*settings, job=CROSS_VALIDATE, to=cluster, variables=None, **sections):
        file = experiment_file(four_cases, resources={"cpus_per_fold": 1}, **sections)
        (clone / "experiments" / "small.yaml").write_text(file.read_text(), encoding="utf-8")
        command = [BIN / "ray", "job", "submit", "--address", to.dashboard, "--working-dir", ".", "--"]
        command += ["python", *map(str, job)]
        command += [part for setting in settings for part in ("--set", setting)]
        return Command(command, tmp_path / "job.log", [tmp_path], cwd=clone, variables=variables)

    return start


def status_of(dashboard, output):
    job = re.search(r"Job '(raysubmit_\w+)' submitted", output)[1]
    return JobSubmissionClient(dashboard).get_job_status(job)


def manifest(run):
    file = run / "manifest.json"
    return read_json(file).get("mlflow", {}) if file.is_file() else {}


def children(uri, experiment="uncseg"):
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def test_a_job_succeeds_and_takes_the_code_alone_to_the_cluster(
    submit, cluster, clone, dashboard, server_uri, tmp_path
):
    for folder in ("data", "runs"):
        (clone / folder).mkdir()
        (clone / folder / "volume.bin").write_bytes(os.urandom(2**20))
    job = (*CROSS_VALIDATE, "--folds", "0")
    output = submit(f"tracking.uri={server_uri}", "tracking.experiment=jobs", "tracking.model=job", job=job).require()
    assert status_of(dashboard, output) == JobStatus.SUCCEEDED
    for text in ("per training step", "per checkpoint", "Table 1", "Table 2", f"MLflow:  {server_uri}"):
        assert text in output
    uploads = list(cluster.folder.glob("session_*/runtime_resources/working_dir_files/_ray_pkg_*/"))
    assert uploads
    for uploaded in uploads:
        assert not {".git", "data", "runs", "tests"} & {path.name for path in uploaded.iterdir()}
        # Ray uploads it as a zip file, and volumes do not get smaller in it
        assert sum(len(zlib.compress(path.read_bytes())) for path in uploaded.rglob("*.*") if path.is_file()) < 2**20
    client, (fold,) = children(server_uri, "jobs")
    history = client.get_metric_history(fold.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == [0, 1, 2, 3]
    assert fold.info.status == "FINISHED"


@pytest.mark.slow
def test_the_same_job_again_has_nothing_left_to_do(submit, dashboard, tmp_path):
    for expected in ("per training step", "already finished: 0, 1"):
        output = submit().require()
        assert status_of(dashboard, output) == JobStatus.SUCCEEDED
        assert expected in output
        assert "Table 2" in output
    assert read_history(tmp_path / "runs/small/spool", 0).attempt == 1


@pytest.mark.slow
def test_every_command_is_a_job(submit, clone, four_cases, dashboard, tmp_path):
    run = tmp_path / "runs/small"
    (clone / "experiments/search.yaml").write_text(
        "{name: search, base: experiments/small.yaml, space: {loss.unc_weight: {choice: [0.2]}}, folds: [0, 1]}"
    )
    jobs = {
        ("jobs/prepare.py", "experiments/small.yaml"): tmp_path / "runs/prepared",
        CROSS_VALIDATE: run / "tables/table2.csv",
        ("jobs/evaluate.py", run): run / "tables/again.csv",
        ("jobs/predict.py", run, four_cases, tmp_path / "new"): tmp_path / "new/BraTS-GLI-00000-000_uncertainty.nii.gz",
        ("jobs/sweep.py", "experiments/search.yaml"): tmp_path / "runs/search/best.yaml",
    }
    for job, made in jobs.items():
        assert not made.exists()
        if job[0] == "jobs/evaluate.py":
            made = (run / "tables/table2.csv").rename(made).with_name("table2.csv")
        assert status_of(dashboard, submit(job=job).require()) == JobStatus.SUCCEEDED
        assert made.exists()


@pytest.mark.slow
def test_a_stopped_job_is_told_from_a_failed_one_and_goes_on(submit, dashboard, tmp_path):
    run = tmp_path / "runs/small"
    long = {"training": {"epochs": 60, "iterations_per_epoch": 10}}
    job = submit(**long)
    # MLflow has noted the runs by then: after a stop Ray leaves a job three seconds to close them
    job.wait_until(
        lambda: min(last_epoch(run, fold) for fold in range(2)) >= 3 and manifest(run).get("parent", {}).get("run_id")
    )
    name = re.search(r"Job '(raysubmit_\w+)' submitted", job.output)[1]
    JobSubmissionClient(dashboard).stop_job(name)
    job.end()
    assert status_of(dashboard, job.output) == JobStatus.STOPPED
    _, folds = children(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert {fold.info.status for fold in folds} == {"KILLED"}

    # a fold that cannot go on: its only checkpoint is none
    for checkpoint in run.rglob("fold_1/checkpoint_*.pth"):
        checkpoint.write_bytes(b"not a checkpoint")
    output = submit(**long).require(1)
    assert status_of(dashboard, output) == JobStatus.FAILED
    assert "failed folds: 1" in output
    assert read_history(run / "spool", 0).state == "finished"


@pytest.mark.slow
def test_relative_paths_and_a_server_that_is_not_there_are_refused_together(submit, dashboard, tmp_path):
    wrong = ("storage.path=runs", "tracking.uri=http://127.0.0.1:9", "resources.cpus_per_fold=64")
    output = submit(*wrong).require(1)
    assert status_of(dashboard, output) == JobStatus.FAILED
    table = output.partition("The run would fail.")[2]  # Ray's log begins with the command, which names them too
    for what in ("storage.path", "tracking.uri", "resources.cpus_per_fold", "3 problems"):
        assert what in table


@pytest.mark.slow
def test_a_cluster_with_a_token_takes_jobs_with_it_alone_and_nothing_keeps_it(
    submit, experiment_file, four_cases, tmp_path
):
    file = experiment_file(four_cases)
    # the token is where Ray looks for it by default, as docs/cluster.md says
    variables = {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    made = subprocess.run([BIN / "ray", "get-auth-token", "--generate"], env=environment() | variables, check=False)
    assert made.returncode == 0
    token = (tmp_path / "home/.ray/auth_token").read_bytes().strip()
    assert len(token) >= 16
    with ray_start(2, **variables) as cluster:
        assert submit(to=cluster).end() != 0
        own = {"RAY_AUTH_TOKEN": "0" * 64, "RAY_ADDRESS": cluster.address}
        for mode, without in (("disabled", True), ("token", False)):
            log = tmp_path / f"{mode}.log"
            command = start_uncseg("prepare", file, log=log, variables=own | {"RAY_AUTH_MODE": mode})
            assert command.end() == 2
            assert "refuses" in command.words
            assert ("whoever" in command.words) is without
            assert "0000" not in command.output
        assert not (tmp_path / "runs" / "small").exists()
        submit(to=cluster, variables=variables).require()
        kept = [path for folder in (tmp_path / "runs", cluster.folder) for path in folder.rglob("*") if path.is_file()]
        assert (tmp_path / "runs/mlflow.db") in kept
        assert [path for path in (*kept, tmp_path / "job.log") if token in path.read_bytes()] == []
